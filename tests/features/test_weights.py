import functools
import hashlib
import http.server
import os
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genbench.core.errors import DataError
from genbench.features import _weights
from genbench.features._weights import digest, fill, find_weights, load_state

NAME = "net-abc.pth"
NOWHERE = f"http://127.0.0.1:9/{NAME}"  # the discard port: refused at once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache and no environment."""
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(tmp_path):
    """A folder, served over HTTP: its path and address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def _file(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _find(**kwargs):
    return find_weights("net", **{"given": "", "filenames": (NAME, "other-name.pth"), "url": NOWHERE, **kwargs})


def test_a_setting_beats_the_environment_which_beats_the_cache(tmp_path, monkeypatch, cache):
    cached = _file(cache / NAME)
    assert _find() == cached
    named = _file(tmp_path / "env" / NAME)
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "env"))
    assert _find() == named
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(named))
    assert _find() == named
    given = _file(tmp_path / "mine.pth")
    assert _find(given=str(given)) == given
    assert _find(given=str(_file(tmp_path / "folder" / "other-name.pth").parent)).name == "other-name.pth"


def test_a_folder_without_the_file_is_passed_over(tmp_path, monkeypatch, cache):
    cached = _file(cache / NAME)
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    assert _find() == cached


@pytest.mark.parametrize("by_setting", [True, False])
def test_a_path_that_names_nothing_is_an_error_and_not_another_file(tmp_path, monkeypatch, cache, by_setting):
    _file(cache / NAME)
    gone = str(tmp_path / "gone.pth")
    if not by_setting:
        monkeypatch.setenv("GENBENCH_WEIGHTS", gone)
    with pytest.raises(DataError, match=r"gone\.pth.*names no file"):
        _find(given=gone if by_setting else "")


def test_missing_weights_say_what_where_and_how(tmp_path, cache):
    with pytest.raises(DataError) as caught:
        _find()
    text = str(caught.value)
    for part in ("net", NAME, NOWHERE, str(cache), "--weights", "GENBENCH_WEIGHTS", "refused"):
        assert part in text
    assert caught.value.exit_code == 2
    assert not any(cache.iterdir())


def test_what_is_published_is_downloaded_once_and_verified(server, cache):
    folder, address = server
    published = _file(folder / NAME, os.urandom(3_000_000))
    sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
    found = _find(url=f"{address}/{NAME}", sha256=sha256)
    assert found == cache / NAME
    assert found.read_bytes() == published.read_bytes()
    published.unlink()
    assert _find(url=f"{address}/{NAME}", sha256=sha256[:8]) == found
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_a_download_with_another_digest_is_refused_and_leaves_nothing(server, cache):
    folder, address = server
    _file(folder / NAME)
    with pytest.raises(DataError, match="SHA-256"):
        _find(url=f"{address}/{NAME}", sha256="0" * 64)
    assert not any(cache.iterdir())


def test_a_page_that_is_not_there_is_an_error_with_its_reason(server):
    with pytest.raises(DataError, match="HTTP 404"):
        _find(url=f"{server[1]}/absent.pth")


def test_a_download_that_ends_early_is_refused(monkeypatch, cache):
    class Short:
        headers = {"Content-Length": "10"}  # noqa: RUF012
        chunks = [b"12345", b""]  # noqa: RUF012

        def read(self, _):
            return self.chunks.pop(0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(_weights.urllib.request, "urlopen", lambda *_, **__: Short())
    with pytest.raises(DataError, match="ended after 5 of 10 bytes"):
        _find()
    assert not any(cache.iterdir())


def test_a_damaged_file_in_the_cache_is_not_used(cache):
    _file(cache / NAME)
    with pytest.raises(DataError, match=r"SHA-256 is .*published is 6726825d"):
        _find(sha256="6726825d")


def test_a_digest_is_made_anew_when_the_file_changes(tmp_path):
    path = _file(tmp_path / "a", b"one")
    assert digest(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert digest(path) == hashlib.sha256(b"three").hexdigest()


def test_tensors_are_read_from_either_kind_of_file(tmp_path):
    state = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pth")
    save_file(state, tmp_path / "safe.safetensors")
    for name in ("plain.pth", "nested.pth", "safe.safetensors"):
        read = load_state("net", tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    torch.save({"weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="cannot be read as weights of `net`"):
        load_state("net", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors"])
def test_a_truncated_file_is_named(tmp_path, name):
    torch.save({"weight": torch.randn(100)}, tmp_path / "whole.pth")
    _file(tmp_path / name, (tmp_path / "whole.pth").read_bytes()[:300])
    with pytest.raises(DataError, match=name):
        load_state("net", tmp_path / name)


def test_anything_but_tensors_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds list"):
        load_state("net", tmp_path / "list.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    with pytest.raises(DataError, match="not the weights of `net`"):
        fill(network, {"other": torch.zeros(1)}, owner="net", path=tmp_path)
    fill(network, {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)}, owner="net", path=tmp_path)
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, torch.ones(2, 3))
