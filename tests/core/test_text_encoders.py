"""Text encoders that are missed before anything runs: with an empty cache, and with or without a network."""

import http.server
import threading
import time

import pytest

from genbench.cli.main import main
from genbench.core.errors import DataError
from genbench.core.text_encoders import check_text_encoder

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "someone/small"
NOBODY = "http://127.0.0.1:9"  # the port `discard`, which nobody listens to


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)


def test_a_name_without_files_and_without_a_network_is_refused_at_once_with_what_to_do():
    begun = time.monotonic()
    with pytest.raises(DataError, match=f"not on this machine .*{NOBODY} does not answer") as caught:
        check_text_encoder(NAME)
    assert time.monotonic() - begun < 10.0
    assert "hf download someone/small --local-dir FOLDER" in str(caught.value.hint)
    assert "text_encoder=FOLDER" in str(caught.value.hint)


def test_a_network_that_must_not_be_used_is_not_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        check_text_encoder(NAME)


def test_a_name_is_let_through_where_something_answers(monkeypatch):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        check_text_encoder(NAME)
        server.shutdown()
        thread.join()


def test_folders_and_cached_names_need_no_network(tmp_path):
    folder = tmp_path / "hub" / "models--someone--small"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    (folder / "snapshots" / "1" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="not on this machine"):  # a download that ended early, or `AutoConfig` alone
        check_text_encoder(NAME)
    (folder / "snapshots" / "1" / "model.safetensors").touch()
    check_text_encoder(NAME)
    check_text_encoder(str(folder / "snapshots" / "1"))
    with pytest.raises(DataError, match=r"no `config\.json` in this folder"):
        check_text_encoder(str(folder))
    with pytest.raises(DataError, match=r"no such folder, and no name on huggingface\.co"):
        check_text_encoder(str(tmp_path / "nothing"))


@pytest.mark.parametrize("command", ["run", "bench"])
def test_work_is_refused_before_its_folder_is_made_and_a_plan_asks_no_network(command, tmp_path, capsys):
    words = ["--suite", "text_to_image", "--tier", "smoke", "-m", f"ddpm[condition=text,text_encoder={NAME}]"]
    assert main(["plan", *words]) == 0
    assert main([command, *words, "--out", str(tmp_path / "run")]) == 2
    assert f"error: text encoder `{NAME}`: not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
