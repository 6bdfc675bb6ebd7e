"""The job file: what comes back, and what is refused."""

from __future__ import annotations

import json

import pytest
from bench_cells import cells_of, job_of

from genbench.core.errors import StoreError
from genbench.harness.round_job import JOB_SCHEMA, read_job, write_job
from genbench.harness.round_worker import main


@pytest.fixture
def job(tiny_suite, tmp_path):
    cell = cells_of(tiny_suite, "ddpm[num_steps=3]")[0]
    return job_of(cell, "throughput", batch_size=8, audit=True, weights=tmp_path / "w", sweep=True)


def test_a_job_comes_back_as_it_was_written(job, tmp_path):
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job


def _changed(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.update(schema="genbench.round-job/9"), ("genbench.round-job/9", JOB_SCHEMA)),
        (lambda document: document["job"].update(colour="red"), ("`colour`",)),
        (lambda document: document["job"]["cell"].update(colour="red"), ("`cell.colour`",)),
        (lambda document: document["job"].update(phase="sleep"), ("`phase`",)),
        (lambda document: document.pop("job"), ("damaged",)),
    ],
)
def test_a_job_of_another_version_is_refused_in_words(change, words, job, tmp_path, capsys):
    path = tmp_path / "job.json"
    write_job(job, path)
    _changed(path, change)
    with pytest.raises(StoreError) as refused:
        read_job(path)
    assert all(word in refused.value.message for word in (*words, str(path)))
    assert main([str(path)]) == 2
    assert words[0] in capsys.readouterr().err
    assert not (tmp_path / "round.json").exists()


def test_what_is_no_job_at_all_is_refused(tmp_path):
    for content in ("[]", "{", "3"):
        (tmp_path / "job.json").write_text(content)
        with pytest.raises(StoreError, match="not a job of a timed round"):
            read_job(tmp_path / "job.json")
