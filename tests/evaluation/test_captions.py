"""Which caption belongs to which sample, through `evaluate` with the encoder of the embedded data."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.dataset import build_dataset
from genbench.core.errors import SampleError
from genbench.core.features import build_features, extract
from genbench.core.spec import parse_ref
from genbench.evaluation.evaluate import evaluate

REFERENCE = "shapes[resolution=8]"
ASKED = {"metrics": ("clip_score", "caption_accuracy"), "text_encoder": "shapes_clip"}
COUNT = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data():
    dataset = build_dataset(parse_ref(REFERENCE))
    batch = dataset.load("test", range(COUNT))
    return batch.x, [dataset.spec.caption(tokens) for tokens in batch.text]


def _png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _folder(path, images):
    path.mkdir()
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        (path / f"{index:03d}.png").write_bytes(_png(image))
    return path


def _tar(path, images, captions):
    with tarfile.open(path, "w") as archive:
        for index, (image, words) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), captions, strict=True)):
            for suffix, content in (("png", _png(image)), ("txt", words.encode())):
                info = tarfile.TarInfo(f"{index:03d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def _beside(folder, captions, form):
    """The captions, written as tools do."""
    names = [f"{index:03d}.png" for index in range(len(captions))]
    if form == "txt":
        for name, words in zip(names, captions, strict=True):
            (folder / name).with_suffix(".txt").write_text(words)
    elif form == "csv":
        rows = [f"{name},{words}" for name, words in zip(names, captions, strict=True)]
        (folder / "prompts.csv").write_text("\n".join(["file_name,prompt", *reversed(rows)]))
    else:
        rows = [json.dumps({"file_name": n, "text": words}) for n, words in zip(names, captions, strict=True)]
        (folder / "metadata.jsonl").write_text("\n".join(reversed(rows)))


def _values(done):
    return {score.name: score.value for score in done.scores}


@pytest.fixture
def expected(data):
    """Scores with the captions given by hand."""
    return _values(evaluate(data[0], REFERENCE, captions=data[1], **ASKED))


def test_captions_that_a_tar_carries_are_used(data, expected, tmp_path):
    assert expected["caption_accuracy"] == 1.0
    assert _values(evaluate(_tar(tmp_path / "a.tar", *data), REFERENCE, **ASKED)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["txt", "csv", "jsonl"])
def test_captions_beside_the_pictures_of_a_folder_are_used(form, data, expected, tmp_path):
    folder = _folder(tmp_path / "drawn", data[0])
    _beside(folder, data[1], form)
    assert _values(evaluate(folder, REFERENCE, **ASKED)) == pytest.approx(expected, rel=1e-6)


def test_captions_that_are_given_go_before_those_that_are_carried(data, tmp_path):
    path = _tar(tmp_path / "a.tar", *data)
    found = _values(evaluate(path, REFERENCE, captions=[data[1][0]] * COUNT, **ASKED))
    assert found["caption_accuracy"] < 0.2


def test_folders_without_captions_say_how_to_give_them(data, tmp_path):
    folder = _folder(tmp_path / "drawn", data[0])
    done = evaluate(folder, REFERENCE, metrics=("mode_coverage", "clip_score"), text_encoder="shapes_clip")
    assert done.skipped["clip_score"] == "the samples have no captions: give `--captions`"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file_name,prompt\n000.png,a small red circle\n", "11 of 12 samples have no captions, the first is `001.png`"),
        ("prompt\na small red circle\n", "row 1 has no text under `file_name`"),
    ],
    ids=["some only", "no files named"],
)
def test_carried_captions_that_do_not_fit_are_a_reason_and_no_error(table, reason, data, tmp_path):
    folder = _folder(tmp_path / "drawn", data[0])
    (folder / "prompts.csv").write_text(table)
    metrics = ("mode_coverage", "clip_score")
    done = evaluate(folder, REFERENCE, metrics=metrics, text_encoder="shapes_clip")
    assert reason in done.skipped["clip_score"]
    assert "mode_coverage" in _values(done)


def test_captions_that_were_given_and_do_not_fit_are_an_error(data, tmp_path):
    folder = _folder(tmp_path / "drawn", data[0])
    for captions in ({"000.png": "a small red circle"}, data[1][:-1]):
        with pytest.raises(SampleError, match="captions"):
            evaluate(folder, REFERENCE, captions=captions, **ASKED)


def test_captions_by_name_are_found_with_and_without_folder_and_ending(data, expected, tmp_path):
    folder = _folder(tmp_path / "drawn", data[0])
    for spell in ("{:03d}", "{:03d}.png"):
        captions = {spell.format(index): words for index, words in enumerate(data[1])}
        assert _values(evaluate(folder, REFERENCE, captions=captions, **ASKED)) == pytest.approx(expected, rel=1e-6)


def test_a_caption_that_the_encoder_does_not_know_is_an_error_that_names_it(data):
    with pytest.raises(SampleError, match="cannot be embedded: caption `a purple dog`") as caught:
        evaluate(data[0], REFERENCE, captions=["a purple dog"] * COUNT, **ASKED)
    assert "--text-encoder" in caught.value.hint


def _harmonic(images, captions, references):
    """RefCLIPScore from the encoder alone, sample by sample (Hessel et al. 2021, Sec. 3)."""
    network = build_features(parse_ref("shapes_clip"))

    def unit(rows):
        values = rows.double().numpy()
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    found = []
    for image, words, several in zip(unit(extract(network, images)), captions, references, strict=True):
        with torch.no_grad():
            text, others = unit(network.encode_text([words]))[0], unit(network.encode_text(several))
        shown, near = 2.5 * max(image @ text, 0.0), max(max(others @ text), 0.0)
        found.append(2.0 * shown * near / (shown + near) if shown + near > 0.0 else 0.0)
    return float(np.mean(found))


@pytest.mark.parametrize("by_name", [False, True])
def test_reference_captions_give_the_harmonic_mean_of_the_paper(by_name, data, tmp_path):
    images, captions = data
    several = [[captions[(i + j) % COUNT] for j in range(1, 1 + i % 3 + 1)] for i in range(COUNT)]
    given = {f"{i:03d}.png": words for i, words in enumerate(several)} if by_name else several
    samples = _folder(tmp_path / "drawn", images) if by_name else images
    asked = {f"{i:03d}": words for i, words in enumerate(captions)} if by_name else captions
    done = evaluate(samples, REFERENCE, captions=asked, reference_captions=given, **ASKED)
    assert done.score("ref_clip_score").value == pytest.approx(_harmonic(images, captions, several), rel=1e-5)


def test_one_reference_caption_may_stand_without_a_list(data):
    images, captions = data
    turned = captions[::-1]
    scores = [
        evaluate(images, REFERENCE, captions=captions, reference_captions=given, **ASKED).score("ref_clip_score").value
        for given in (turned, [[words] for words in turned])
    ]
    assert scores[0] == scores[1]


def test_without_reference_captions_there_is_no_such_score(expected):
    assert "ref_clip_score" not in expected


def test_reference_captions_must_be_as_many_as_samples(data):
    with pytest.raises(SampleError, match="11 reference captions stand beside 12 samples"):
        evaluate(data[0], REFERENCE, captions=data[1], reference_captions=data[1][1:], **ASKED)
