"""Files of `genbench evaluate --prompt-scores`: a score for each prompt as CSV, the worst and best as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.evaluation.prompt_scores import PromptScores
    from genbench.report.captioned import Captioned

COLUMNS = ("file_name", "prompt", "cosine")


def write_prompt_scores(found: PromptScores, path: Path) -> list[Path]:
    """Write the table, and beside it the picture under the same name with the ending `.png`; where they are.

    Raises:
        StoreError: they cannot be written.
    """
    from genbench.core.files import write_atomically
    from genbench.report.captioned import captioned_page
    from genbench.report.nearest import png_bytes

    total = len(found.cosines)
    sections = {
        f"the {len(found.worst)} of {total} that show their words least, by {found.protocol['extractor']}": _section(
            found, best=False
        ),
        f"the {len(found.best)} that show them most": _section(found, best=True),
    }
    beside = path.with_suffix(".png")
    write_atomically(path, _csv(found))
    write_atomically(beside, png_bytes(captioned_page(sections)))
    return [path, beside]


def _csv(found: PromptScores) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for name, prompt, cosine in zip(found.names, found.prompts, found.cosines, strict=True):
        rows.writerow([name, prompt, f"{cosine:.9g}"])
    return text.getvalue().encode()


def _section(found: PromptScores, *, best: bool) -> Captioned:
    from genbench.report.captioned import Captioned

    places, images = (found.best, found.best_images) if best else (found.worst, found.worst_images)
    return Captioned(
        images=images.numpy(),
        remarks=[f"{found.cosines[place]:.3f}  {Path(found.names[place]).name}" for place in places],
        captions=[found.prompts[place] for place in places],
    )
