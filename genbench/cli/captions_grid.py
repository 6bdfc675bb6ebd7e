"""`genbench grid --kind captions`: what each model of a run draws for the same captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from genbench.cli.kept_weights import rebuilt_of

if TYPE_CHECKING:
    from PIL import Image

    from genbench.core.record import Record
    from genbench.store import RunFolder


def captions_page(
    folder: RunFolder,
    records: Sequence[Record],
    *,
    columns: int,
    name: Callable[[Record], str],
    say: Callable[[str], None],
) -> Image.Image:
    """Real pictures first, then a line for each model that can be told words; the words stand below.

    Args:
        folder: of the run.
        records: of finished cells.
        columns: captions.
        name: label of a record.
        say: told which models are left out, and why.

    Raises:
        StoreError: no model of the run draws for words.
        SettingError: its data have no captions.
    """
    from genbench.core.dataset import build_dataset
    from genbench.core.errors import GenbenchError, StoreError
    from genbench.harness.prompted_pictures import asked_captions, pictures_for, why_none
    from genbench.prob.pixels import to_rgb
    from genbench.report.captioned import prompted_rows

    models = [record for record in records if record.cell.role == "model"]
    if not models:
        raise StoreError(f"{folder.path}: no finished models", hint="`genbench run` makes them")
    dataset = build_dataset(models[0].cell.dataset)  # a run has one
    asked = asked_captions(dataset, columns)
    text = asked.examples.text
    assert text is not None  # the data have captions
    rows = {"real pictures": to_rgb(asked.examples.x, dataset.spec.levels or 256).numpy()}
    for record in models:
        try:
            model = rebuilt_of(folder, record).model
        except GenbenchError as error:
            say(f"left out `{name(record)}`: {error.message}")
            continue
        reason = why_none(model)
        if reason is None:
            rows[name(record)] = pictures_for(model, text, seed=record.cell.seed)
        else:
            say(f"left out `{name(record)}`: {reason}")
    if len(rows) == 1:
        raise StoreError(
            f"{folder.path}: no model of this run draws for words", hint="`genbench run --suite text_to_image` has some"
        )
    words = [dataset.spec.caption(tokens) for tokens in text]
    return prompted_rows(rows, words, ["never shown:" if unseen else "" for unseen in asked.held_out])
