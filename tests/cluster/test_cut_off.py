"""Jobs on a real SLURM that are cut off: by time, preemption, lost nodes, lack of memory, Ctrl-C, lost records of them.

Long forms all (`LTPA_CLUSTER=1`); test_slurm.py says what they need.
"""

import signal
import time
from pathlib import Path

import pytest
import slurm
from checkouts import LONG, SHORT, SHORT_JOBS, Checkout, alike, job, shown, until

pytest_plugins = ["machine"]
pytestmark = [pytest.mark.cluster, pytest.mark.workflow, LONG]

STORM = {"variants": ["vgg-att2-concat-pc"], "datasets": ["digits-marks"], "tables": ["figure6"], "seeds": [0, 1]}
HURRIED_JOBS = {**SHORT_JOBS, "minutes": {"prepare": 5, "train": 2, "evaluate": 5, "view": 5}}
STORM_NAME = "rule_train_wildcards_digits-marks_vgg-att2-concat-pc_{}"


def finish_both(distant: Checkout, process, local: Checkout, at_least: int) -> None:
    """Wait for the run on SLURM, repeat it here, compare."""
    distant.finish(process, seconds=1800)
    local.finish(local.start("figure6", "--cores", "2"), seconds=1800)
    alike(local, distant, at_least)


def test_a_training_that_meets_its_time_limit_goes_on_from_its_state(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 20, HURRIED_JOBS, **{**STORM, "seeds": [0]})
    distant = Checkout(tmp_path / "distant", 20, HURRIED_JOBS, **{**STORM, "seeds": [0]})
    process = distant.submit("figure6", "--default-resources", "slurm_extra='--signal=USR1@100'")
    finish_both(distant, process, local, at_least=6)
    assert warned(100), "no training met its time limit"
    assert distant.epochs("digits-marks", "vgg-att2-concat-pc")[0] >= 2, "the training began anew"


def warned(seconds: int) -> list[str]:
    """Jobs that ended by themselves in the last `seconds` of their time, and in no success."""
    found = []
    for text in slurm.run("scontrol", "show", "job").split("\n\n"):
        words = dict(word.split("=", 1) for word in text.split() if "=" in word)
        if words.get("JobState") == "FAILED" and words["ExitCode"] == "1:0":
            ran, limit = (
                sum(int(part) * 60**power for power, part in enumerate(reversed(words[key].split(":"))))
                for key in ("RunTime", "TimeLimit")
            )
            if limit - seconds - 5 <= ran < limit:
                found.append(words["JobId"])
    return found


def test_preemption_and_a_lost_node_cost_no_retry_and_change_no_byte(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 30, SHORT_JOBS | {"minutes": {"train": 60}}, **STORM)
    distant = Checkout(tmp_path / "distant", 30, SHORT_JOBS | {"minutes": {"train": 60}}, **STORM)
    process = distant.submit("figure6", "--retries", "0")

    def trained(seed: int) -> list[int]:
        return distant.epochs("digits-marks", "vgg-att2-concat-pc", seed)[1:]

    until("two epochs of both", lambda: trained(0) and trained(1), process)
    preempted = job(STORM_NAME.format(0))
    node = shown(preempted)["NodeList"]
    urgent = slurm.run("sbatch", "--parsable", "-p", "urgent", "-w", node, "--exclusive", "--wrap", "sleep 5").strip()
    until("the urgent job", lambda: shown(urgent)["JobState"] == "COMPLETED", process)
    assert shown(preempted)["Restarts"] == "1"

    lost = until("the other training, again", lambda: job(STORM_NAME.format(1)), process)
    restarts = int(shown(lost)["Restarts"])
    until("its epochs", lambda: trained(1), process)
    node = shown(lost)["NodeList"]
    cluster.kill_node(node)
    other = next(name for name in slurm.NODES if name != node)
    until("the other node", lambda: shown(lost)["NodeList"] == other, process)
    assert int(shown(lost)["Restarts"]) == restarts + 1
    cluster.start_node(node)
    finish_both(distant, process, local, at_least=7)
    assert [distant.epochs("digits-marks", "vgg-att2-concat-pc", seed)[0] >= 2 for seed in (0, 1)] == [True] * 2


def test_a_training_short_of_memory_gets_more(cluster: slurm.Cluster, tmp_path: Path):
    narrow = {**SHORT_JOBS, "mem_mb": 300}
    local = Checkout(tmp_path / "local", 10, narrow, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, narrow, **SHORT)
    process = distant.submit("figure6")
    name = "rule_train_wildcards_digits-marks_vgg_0"
    first = until("the training", lambda: job(name), process)
    assert shown(first)["MinMemoryNode"] == "300M"
    until("its end", lambda: shown(first)["JobState"] not in ("RUNNING", "COMPLETING"), process)
    assert shown(first)["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    second = until("the second attempt", lambda: job(name), process)
    assert shown(second)["MinMemoryNode"] == "600M"
    finish_both(distant, process, local, at_least=7)
    said = [path.read_text() for path in (distant.root / "results" / "slurm").rglob(f"{first}.log")]
    assert said and "memory" in said[0].lower()


def interrupt(checkout: Checkout, process) -> None:
    """Ctrl-C, after which no job may be left."""
    process.send_signal(signal.SIGINT)
    checkout.finish(process, code=1, seconds=180)
    deadline = time.monotonic() + 60
    while slurm.run("squeue", "-h"):
        assert time.monotonic() < deadline, "jobs run on"
        time.sleep(0.5)


def test_an_interrupted_snakemake_cancels_its_jobs_and_the_next_goes_on(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 10, SHORT_JOBS, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, SHORT_JOBS, **SHORT)
    process = distant.submit("figure6")
    until("two epochs", lambda: distant.epochs("digits-marks", "vgg")[1:], process)
    interrupt(distant, process)
    finish_both(distant, distant.submit("figure6"), local, at_least=7)
    assert distant.epochs("digits-marks", "vgg")[0] >= 2, "the training began anew"


def test_jobs_that_the_controller_forgot_are_submitted_again(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 10, SHORT_JOBS, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, SHORT_JOBS, **SHORT)
    process = distant.submit("figure6")
    until("two epochs", lambda: distant.epochs("digits-marks", "vgg")[1:], process)
    cluster.forget()
    assert slurm.run("squeue", "-h", "-t", "all") == ""
    finish_both(distant, process, local, at_least=7)
    assert "is lost: SLURM answered" in distant.output
    assert distant.epochs("digits-marks", "vgg")[0] >= 2, "the training began anew"
