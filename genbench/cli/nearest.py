"""Files of `genbench evaluate --nearest`: the samples nearest to the reference as CSV, as JSON, and as a picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.evaluation.nearest import NearestSamples, NearSample

COLUMNS = ("sample", "reference", "distance", "held_out_distance")


def write_nearest(found: NearestSamples, folder: Path) -> list[Path]:
    """Write `nearest.csv`, `nearest.json` and, where there are pictures, `nearest.png`; where they are.

    Raises:
        StoreError: the folder cannot be written.
    """
    from genbench.core.files import write_atomically
    from genbench.report.nearest import neighbour_page, png_bytes

    content = {"nearest.csv": _csv(found), "nearest.json": (json.dumps(found.document(), indent=1) + "\n").encode()}
    if found.sample_images is not None and found.reference_images is not None:
        labels = [_label(row) for row in found.rows]
        page = neighbour_page(found.sample_images.numpy(), found.reference_images.numpy(), labels)
        content["nearest.png"] = png_bytes(page)
    for name, part in content.items():
        write_atomically(folder / name, part)
    return [folder / name for name in content]


def _csv(found: NearestSamples) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for row in found.rows:
        unseen = "" if row.held_out_distance is None else f"{row.held_out_distance:.9g}"
        rows.writerow([row.sample, row.neighbours[0].reference, f"{row.distance:.9g}", unseen])
    return text.getvalue().encode()


def _label(row: NearSample) -> tuple[str, ...]:
    unseen = () if row.held_out_distance is None else (f"held-out {row.held_out_distance:.3g}",)
    return (row.sample, f"distance {row.distance:.3g}", *unseen)
