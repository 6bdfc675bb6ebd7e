"""The digest of sources follows every file that can change a number, and no other."""

import pytest

from genbench.core import declared


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(declared, "PACKAGE_ROOT", tmp_path)
    for name in ("nn/layer.py", "models/_shared.py", "models/vae/vae.py", "models/flow/flow.py", "cli/run.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    declared._shared_content.cache_clear()
    yield tmp_path
    declared._shared_content.cache_clear()


def _digest(package):
    declared._shared_content.cache_clear()
    return declared.source_digest([package / "models/vae/vae.py"])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("nn/layer.py", True),
        ("models/_shared.py", True),
        ("models/vae/vae.py", True),
        ("models/flow/flow.py", False),
        ("cli/run.py", False),
    ],
)
def test_a_changed_file_changes_the_digest_of_the_models_that_use_it(package, name, counts):
    before = _digest(package)
    assert _digest(package) == before
    (package / name).write_text("x = 2\n")
    assert (_digest(package) != before) == counts
