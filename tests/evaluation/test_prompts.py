import json

import pytest

from genbench.core.errors import DataError
from genbench.evaluation.prompts import captions_beside, read_captions, read_reference_captions

NAMES = ["a/0.png", "a/1.png"]


def _written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.txt", "a cat\n\na dog\n", ["a cat", "", "a dog"]),
        ("c.json", '["a cat", "a dog"]', ["a cat", "a dog"]),
        ("c.json", '{"0.png": "a cat"}', {"0.png": "a cat"}),
        ("c.csv", 'seed,file_name,prompt\n1,0.png,"a cat, and\na dog"\n', {"0.png": "a cat, and\na dog"}),
        ("c.csv", "\ufeffimage,caption\n0.png,a cat\n", {"0.png": "a cat"}),
        ("c.jsonl", '{"file_name": "0.png", "text": "a cat"}\n\n', {"0.png": "a cat"}),
        ("c.JSONL", '{"path": "0.png", "prompt": "a cat", "text": "no"}', {"0.png": "a cat"}),
    ],
)
def test_captions_are_read_in_every_form(name, text, expected, tmp_path):
    assert read_captions(_written(tmp_path / name, text)) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.txt", "a cat\na dog", ["a cat", "a dog"]),
        ("c.json", '[["a cat", "a tom"], "a dog"]', [["a cat", "a tom"], "a dog"]),
        ("c.json", '{"0.png": ["a cat", "a tom"]}', {"0.png": ["a cat", "a tom"]}),
        ("c.csv", "file,text\n0,a cat\n1,a dog\n0,a tom\n", {"0": ["a cat", "a tom"], "1": "a dog"}),
    ],
)
def test_references_may_be_several(name, text, expected, tmp_path):
    assert read_reference_captions(_written(tmp_path / name, text)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", "no captions"),
        ("c.json", "3", "expected a list or an object"),
        ("c.json", "[3]", "`3` is no caption"),
        ("c.json", "[[]]", "is no caption"),
        ("c.json", '[["a", "b"]]', "more than one caption for `0`"),
        ("c.csv", "file,text\n0,a\n0,b\n", "more than one caption for `0`"),
        ("c.csv", "0.png,a cat\n1.png,a dog\n", "row 1 has no text under `file_name`"),
        ("c.csv", 'file,text\n0,"a\n', "no captions"),
        ("c.jsonl", '{"file": "0", "text": "a"}\n{"file": "1"}\n', "row 2 has no text under `prompt`"),
        ("c.jsonl", "[1]\n", "row 1 has no text"),
        ("c.jsonl", "x\n", "no captions"),
    ],
)
def test_what_holds_no_captions_says_so_and_names_the_forms(name, text, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        read_captions(_written(tmp_path / name, text))
    assert caught.value.hint


def test_a_file_that_is_not_there_or_no_text_says_so(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    for name, message in (("c.txt", "no captions"), ("none.txt", "there is no such file"), ("", "a folder")):
        with pytest.raises(DataError, match=message) as caught:
            read_captions(tmp_path / name)
        assert "one caption a line" in str(caught.value.hint)


def test_a_table_beside_pictures_is_found_and_prompts_go_before_metadata(tmp_path):
    assert captions_beside(tmp_path, NAMES) is None
    _written(tmp_path / "metadata.jsonl", json.dumps({"file_name": "0.png", "text": "an old one"}))
    assert captions_beside(tmp_path, NAMES) == {"0.png": "an old one"}
    _written(tmp_path / "prompts.csv", "file_name,prompt\n0.png,a cat\n")
    assert captions_beside(tmp_path, NAMES) == {"0.png": "a cat"}


def test_text_files_of_the_pictures_own_names_are_their_captions(tmp_path):
    _written(tmp_path / "a" / "1.txt", " a\n  dog \n")
    _written(tmp_path / "notes.txt", "nothing")
    assert captions_beside(tmp_path, NAMES) == {"a/1.png": "a dog"}


def test_a_text_file_beside_a_picture_that_is_no_text_is_named(tmp_path):
    _written(tmp_path / "a" / "1.txt", "").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"1\.txt: no caption"):
        captions_beside(tmp_path, NAMES)
