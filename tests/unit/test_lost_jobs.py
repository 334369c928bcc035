"""Jobs that SLURM lost: given up after a while, and never for a silence of SLURM or a short absence."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltpa.runtime import lost_jobs
from ltpa.runtime.lost_jobs import Absences, all_written_since, extend, queued_jobs

QUEUES = st.none() | st.sets(st.sampled_from("123"))


@given(st.lists(st.tuples(st.integers(1, 50), QUEUES), max_size=20), st.integers(1, 100))
def test_gone_is_who_was_absent_from_every_answer_for_so_long(answers, patience: int):
    moment = 0
    absences = Absences(patience, lambda: moment)
    history: list[tuple[int, set[str]]] = []
    for seconds, queue in answers:
        moment += seconds
        gone = absences.gone("123", queue)
        if queue is None:
            assert gone == set()
            continue
        history.append((moment, queue))
        for number in "123":
            absent = []
            for when, seen in reversed(history):
                if number in seen:
                    break
                absent.append(when)
            assert (number in gone) == (bool(absent) and moment - absent[-1] >= patience)


def test_a_task_of_an_array_is_known_by_its_array():
    absences = Absences(0, lambda: 0.0)
    assert absences.gone(["7_3", "8_1"], {"7"}) == {"8_1"}


@pytest.mark.parametrize(
    ("body", "found"), [("printf '12\\n13\\n'", {"12", "13"}), ("true", set()), ("echo 12; exit 1", None), (None, None)]
)
def test_the_queue_is_what_squeue_says_or_unknown(tmp_path: Path, monkeypatch, body: str | None, found):
    monkeypatch.setenv("PATH", str(tmp_path))
    if body is not None:
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "squeue").chmod(0o755)
    assert queued_jobs("a-run") == found


def test_files_count_only_when_all_are_there_and_new(tmp_path: Path):
    new, old, absent = tmp_path / "new", tmp_path / "old", tmp_path / "absent"
    for path, moment in ((new, 2000), (old, 1000)):
        path.touch()
        os.utime(path, (moment, moment))
    assert all_written_since([new], 1500)
    assert not all_written_since([new, old], 1500)
    assert not all_written_since([new, absent], 1500)


class Plugin:
    """The plugin's executor as far as the extension calls it: it waits for every job."""

    run_uuid = "a-run"

    def __init__(self, clusters: set[str]) -> None:
        self.workflow = SimpleNamespace(executor_settings=SimpleNamespace(init_seconds_before_status_checks=0))
        self._submitted_job_clusters = clusters
        self.said: list[tuple[str, str]] = []
        self.__post_init__()

    def __post_init__(self) -> None:
        pass

    def report_job_submission(self, job_info, register_job: bool = True) -> None:
        pass

    def report_job_success(self, job) -> None:
        self.said.append(("success", job.external_jobid))

    def report_job_error(self, job, msg: str, aux_logs: list[str]) -> None:
        self.said.append((msg, job.external_jobid))

    async def check_active_jobs(self, active_jobs):
        for job in active_jobs:
            yield job


def check(executor, jobs) -> list[str]:
    async def collect() -> list[str]:
        return [job.external_jobid async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(collect())


def test_a_lost_job_failed_unless_all_its_files_were_written(tmp_path: Path, monkeypatch):
    jobs = [
        SimpleNamespace(
            external_jobid=number, job=SimpleNamespace(output=[tmp_path / number]), aux={"slurm_logfile": "l"}
        )
        for number in ("1", "2", "3")
    ]
    for number, old in (("2", False), ("3", True)):
        (tmp_path / number).touch()
        if old:
            os.utime(tmp_path / number, (1000, 1000))
    os.utime(tmp_path / "2", (2**33, 2**33))
    monkeypatch.setattr(lost_jobs, "queued_jobs", lambda run: {"1"})
    executor = extend(Plugin)(set())
    for job in jobs:
        executor.report_job_submission(job)
    assert check(executor, jobs) == ["1"]
    assert executor.said[0] == ("success", "2")
    (message, number) = executor.said[1]
    assert number == "3" and "'3' is lost" in message

    elsewhere = extend(Plugin)({"another-cluster"})
    assert check(elsewhere, jobs) == ["1", "2", "3"] and elsewhere.said == []
