"""`genbench sample`, and `evaluate` of what it wrote: prompts in, pictures, scores of each and a page of the worst."""

import csv
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from genbench.cli.main import main
from genbench.core.dataset import DataSpec, build_dataset
from genbench.core.errors import DataError, SettingError
from genbench.core.record import Record
from genbench.core.spec import Cell, Ref, Tier, parse_ref
from genbench.evaluation.prompts import read_prompts
from genbench.harness.building import build
from genbench.harness.prompted_pictures import asked_captions, tokens_of
from genbench.store import RunFolder, StoredPlan

DATA = parse_ref("shapes[resolution=8]")
PROMPTS = ["a small red circle at the top left on a black background", "a large blue square in the centre", "green"]
TOLD = "ddpm[condition=text]"


def _cell(label, *, role="model", weights_from=None, **sampling):
    subject = parse_ref(label)
    protocol = Tier(
        dataset=DATA, preset="smoke", samples_seen=1, num_samples=1, num_reference=1, num_likelihood=1, seeds=()
    )
    return Cell(
        suite="tiny",
        suite_version=1,
        tier="smoke",
        role=role,
        subject=subject,
        dataset=DATA,
        features=Ref(name="shapes_net"),
        metrics=(),
        protocol=protocol,
        samples_seen=1,
        seed=0,
        device="cpu",
        source_sha256="0",
        genbench_version="1",
        sampling={"num_steps": 3, **sampling},
        weights_from=weights_from,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of untrained models: told words, told them more loudly with the same weights, told nothing."""
    folder = RunFolder.create(tmp_path_factory.mktemp("run"))
    owner = _cell(TOLD)
    cells = [owner, _cell(TOLD, weights_from=owner.key, guidance=3.0), _cell("ddpm")]
    cells.append(_cell("real", role="control").model_copy(update={"sampling": {}}))
    folder.write_plan(StoredPlan(genbench_version="1", suite="tiny", tier="smoke", created="2026", cells=tuple(cells)))
    for cell in cells:
        inside = folder.clear_cell(cell.key)
        if cell.role == "model" and cell.weights_from is None:
            torch.manual_seed(3)
            model = build(cell, build_dataset(DATA))
            for parameter in model.parameters():
                parameter.data.add_(0.05 * torch.randn_like(parameter))
            weights = {
                name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()
            }
            safetensors.torch.save_file(weights, inside / "model.safetensors")
        folder.write_record(Record(key=cell.key, cell=cell, status="ok", started="2026", ended="2026"))
    return folder.path


def _prompts(folder, lines=PROMPTS):
    path = folder / "wanted.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def _pictures(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def _sample(run, tmp_path, out, *more, lines=PROMPTS):
    prompts = _prompts(tmp_path, lines)
    return main(["sample", str(run), "--prompts", str(prompts), "--out", str(tmp_path / out), *more])


ROW = ("--row", f"{TOLD[:-1]},num_steps=3]")
LOUD = ("--row", f"{TOLD[:-1]},num_steps=3,guidance=3.0]")


def test_pictures_and_their_prompts_are_written_as_a_function_of_the_seed(run, tmp_path, capsys):
    assert _sample(run, tmp_path, "a", *ROW, "--per-prompt", "2") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'prompts.csv'}\n"
    with (tmp_path / "a" / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == [prompt for prompt in PROMPTS for _ in range(2)]
    first = _pictures(tmp_path / "a")
    assert [row["file_name"] for row in rows] == list(first) == [f"0000{i}.png" for i in range(6)]
    assert {picture.shape for picture in first.values()} == {(8, 8, 3)}
    assert not np.array_equal(first["00000.png"], first["00001.png"])
    told_apart = ("--row", "ddpm[guidance=3.0]")
    assert _sample(run, tmp_path, "e", *told_apart) == _sample(run, tmp_path, "f", *LOUD) == 0
    assert (tmp_path / "e" / "00000.png").read_bytes() == (tmp_path / "f" / "00000.png").read_bytes()
    for out, more, same in (("b", ROW, True), ("c", (*ROW, "--seed", "1"), False), ("d", LOUD, False)):
        assert _sample(run, tmp_path, out, *more, "--per-prompt", "2") == 0
        again = _pictures(tmp_path / out)
        assert all(np.array_equal(first[name], again[name]) for name in first) == same


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        (
            ["red", "a purple circle"],
            ROW,
            "prompt 2 `a purple circle`: the model does not know `purple` hint: its words are a, ",
        ),
        (["red " * 13], ROW, "has 13 words, expected 1 to 12"),
        (PROMPTS, ("--row", "ddpm[num_steps=3]"), "cannot be told in words"),
        (PROMPTS, ("--row", "dppm"), "no finished row `dppm`"),
        (PROMPTS, ("--row", "real"), "`real` is a control and has no weights to draw from hint: rows: ddpm[condition"),
        (PROMPTS, ("--row", "ddpm[condition=text]"), "`ddpm[condition=text]` may be any of 2 rows"),
        (PROMPTS, ("--row", "ddpm[guidance=7.0]"), "no finished row `ddpm[guidance=7.0]`"),
        (PROMPTS, (), "3 rows may be meant, say which by `--row`"),
        (PROMPTS, (*ROW, "--per-prompt", "0"), "expected 1 or more"),
        (["red", ""], ROW, "prompt 2 is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(run, tmp_path, capsys, lines, more, message):
    assert _sample(run, tmp_path, "out", *more, lines=lines) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_only_rows_that_draw_for_words_are_offered(run, tmp_path, capsys):
    assert _sample(run, tmp_path, "out", "--row", "real") == 2
    hint = capsys.readouterr().err.partition("hint: ")[2]
    assert hint == "rows: ddpm[condition=text,num_steps=3]; ddpm[condition=text,num_steps=3,guidance=3.0]\n"


def test_a_run_without_such_rows_says_what_makes_them(tmp_path, capsys):
    folder = RunFolder.create(tmp_path / "untold")
    cells = [_cell("ddpm"), _cell("real", role="control").model_copy(update={"sampling": {}})]
    folder.write_plan(StoredPlan(genbench_version="1", suite="tiny", tier="smoke", created="2026", cells=tuple(cells)))
    for cell in cells:
        folder.write_record(Record(key=cell.key, cell=cell, status="ok", started="2026", ended="2026"))
    assert _sample(folder.path, tmp_path, "out", "--row", "real") == 2
    assert capsys.readouterr().err.endswith(
        "hint: no row is told in words what to draw; `genbench run --suite text_to_image` makes such a run\n"
    )


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.png").write_bytes(b"1")
    assert _sample(run, tmp_path, "out", *ROW) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_unknown_words_name_the_vocabulary_and_the_nearest_word():
    spec = build_dataset(DATA).spec
    for prompt, hint in {
        "a rad circle": "did you mean `red` for `rad`?",
        "A smal bleu": "did you mean `a` for `A`? did you mean `small` for `smal`? did you mean `blue` for `bleu`?",
        "Yelow Squere": "did you mean `yellow` for `Yelow`? did you mean `square` for `Squere`?",
        "an": "its words are a, small, large, ",
        "an ultramarine xylophone": "its words are a, small, large, ",
        "a rad xylophone": "did you mean `red` for `rad`? its words are a, small, large, ",
    }.items():
        with pytest.raises(SettingError, match="the model does not know") as caught:
            tokens_of([prompt], spec, length=12)
        assert str(caught.value.hint).startswith(hint)
    tokens = tokens_of(PROMPTS, spec, length=12)
    assert [spec.caption(row) for row in tokens] == PROMPTS


def test_of_a_large_vocabulary_a_part_is_shown_with_how_to_see_more():
    spec = DataSpec(shape=(3, 8, 8), vocabulary=("", *(f"word{number}" for number in range(5000))))
    with pytest.raises(SettingError) as caught:
        tokens_of(["xylophone"], spec, length=12)
    assert str(caught.value.hint).startswith("it has 5,000 words, such as word0, word1, ")
    assert str(caught.value.hint).endswith("`genbench grid RUN --kind captions` shows captions")
    assert len(str(caught.value.hint)) < 700


def test_prompts_are_read_from_every_form(tmp_path):
    forms = {
        "a.txt": "red\nblue\n",
        "a.json": json.dumps(["red", "blue"]),
        "b.json": json.dumps({"x.png": "red", "y.png": "blue"}),
        "a.jsonl": '{"prompt": "red"}\n{"prompt": "blue"}\n',
        "a.csv": "prompt\nred\nblue\n",
        "b.csv": "file_name,prompt\nx.png,red\nx.png,blue\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert read_prompts(tmp_path / name) == ["red", "blue"]
    for name, text in (("c.txt", ""), ("c.json", '{"a": 1}'), ("c.csv", "words\nred\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError):
            read_prompts(tmp_path / name)
    for name, message in (("none.txt", "there is no such file"), ("", "a folder, expected a file")):
        with pytest.raises(DataError, match=message) as caught:
            read_prompts(tmp_path / name)
        assert "one prompt a line" in str(caught.value.hint)


def _evaluate(drawn, tmp_path, *more):
    words = ["--reference", DATA.label, "--metrics", "caption_accuracy", "--text-encoder", "shapes_clip", "--no-cache"]
    return main(["evaluate", str(drawn), *words, "--json", str(tmp_path / "scores.json"), *more])


def test_one_prompt_has_no_scores_of_prompts(run, tmp_path, capsys):
    assert _sample(run, tmp_path, "one", *ROW, lines=PROMPTS[:1]) == 0
    assert _evaluate(tmp_path / "one", tmp_path, "--prompt-scores", str(tmp_path / "scores.csv")) == 2
    assert "need at least 2, found 1" in capsys.readouterr().err


def test_what_was_sampled_is_evaluated_prompt_by_prompt(run, tmp_path, capsys):
    lines = [PROMPTS[0], "a large green cross in the centre on a grey background"]
    assert _sample(run, tmp_path, "drawn", *ROW, "--per-prompt", "15", lines=lines) == 0
    table = tmp_path / "each.csv"
    assert _evaluate(tmp_path / "drawn", tmp_path, "--prompt-scores", str(table)) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [f"000{i:02d}.png" for i in range(30)]
    cosines = [float(row["cosine"]) for row in rows]
    assert scores["clip_score"]["value"] == pytest.approx(sum(cosines) / 30, abs=1e-6)
    low, high = scores["clip_score"]["ci95"]
    assert low < scores["clip_score"]["value"] < high
    assert scores["caption_accuracy"]["num_samples"] == 30
    with Image.open(table.with_suffix(".png")) as page:
        assert page.width > 5 * 104
        assert len(np.unique(np.asarray(page))) > 20
    capsys.readouterr()


def test_scores_of_prompts_stand_in_the_order_of_the_files(tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    names = [f"{stem}{place}.png" for stem in ("00", "sq", "zz") for place in range(20)]
    examples = build_dataset(DATA).load("test", range(len(names)))
    for name, picture in zip(names, examples.x, strict=True):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name)
    captions = [build_dataset(DATA).spec.caption(tokens) for tokens in examples.text]
    table = "".join(f"{name},{words}\n" for name, words in zip(names, captions, strict=True))
    (folder / "prompts.csv").write_text(f"file_name,prompt\n{table}")
    assert _evaluate(folder, tmp_path, "--prompt-scores", str(tmp_path / "each.csv")) == 0
    with (tmp_path / "each.csv").open() as file:
        rows = [(row["file_name"], row["prompt"]) for row in csv.DictReader(file)]
    assert rows == sorted(zip(names, captions, strict=True))
    assert len({words for _, words in rows}) > 20
    capsys.readouterr()


def test_prompts_cannot_be_scored_where_there_are_none(tmp_path, capsys):
    folder = tmp_path / "bare"
    folder.mkdir()
    for place, picture in enumerate(build_dataset(DATA).load("test", range(4)).x):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{place}.png")
    assert _evaluate(folder, tmp_path, "--prompt-scores", str(tmp_path / "each.csv")) == 2
    assert "cannot be scored one by one: the samples have no captions" in " ".join(capsys.readouterr().err.split())
    assert _evaluate(folder, tmp_path, "--prompt-scores", str(tmp_path / "each.txt")) == 2
    assert "name it `.csv`" in capsys.readouterr().err
    assert _evaluate(folder, tmp_path, "--prompt-scores", str(folder / "prompts.csv")) == 2
    assert "it lies in the folder of the samples" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 4


def test_the_grid_of_captions_shows_all_rows_that_are_told_words(run, tmp_path, capsys):
    out = tmp_path / "captions.png"
    assert main(["grid", str(run), "--kind", "captions", "--columns", "4", "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "left out `ddpm[num_steps=3]`: it cannot be told in words what to draw" in said.err
    with Image.open(out) as page:
        assert page.width > 4 * 104
        assert page.height > 3 * 104 + 15 * 2  # real pictures and two rows, and words


@pytest.mark.parametrize("data", ["captioned_shapes[resolution=8]", "patches[resolution=8]"])
def test_data_without_pictures_that_have_captions_give_no_grid_of_captions(data):
    with pytest.raises(SettingError, match="are no pictures with captions") as caught:
        asked_captions(build_dataset(parse_ref(data)), 4)
    assert "--kind texts" in caught.value.hint


def test_captions_of_the_grid_are_half_of_combinations_that_training_never_shows():
    asked = asked_captions(build_dataset(DATA), 7)
    assert asked.held_out == (False,) * 4 + (True,) * 3
    assert len(asked.examples.text) == len(asked.examples.x) == 7
