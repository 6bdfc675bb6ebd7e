"""Training of the shipped language model: files that load, and the same weights from the same seed."""

from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.harness import shapes_language_training
from genbench.harness.shapes_language_training import train_shapes_language


def test_the_files_load_and_the_seed_decides_them(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes_language_training, "NUM_HELD_OUT", 20)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        nats = train_shapes_language(tmp_path / name, steps=2, seed=seed)
        assert list(nats) == [str(shots) for shots in range(9)]
    weights = {name: (tmp_path / name / "shapes_language.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]
    path = tmp_path / "a" / "shapes_language.safetensors"
    extractor = build_features(Ref(name="shapes_language", config={"weights": str(path)}))
    assert extractor.protocol()["extractor"] == "shapes_language"
