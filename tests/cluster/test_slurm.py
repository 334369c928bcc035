"""The workflow on a real SLURM (`slurm.py` starts it): jobs requeued, preempted, cut off or lost change no byte.

The short form runs wherever SLURM is installed and the user is root. `LTPA_CLUSTER=1` adds all tables of the mini
scale, time-outs, preemption, a lost node and an interrupted Snakemake; it takes ten minutes and more. GPUs are counts
here: the trainings compute on the processor, and ask for a GPU all the same where a test says so.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.workflow]

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "tests" / "workflow" / "mini.yaml"
PARTS = ("Snakefile", "ltpa", "config", "workflow", "profiles", "envs")
RECIPE = {"epochs": 6, "batch_size": 32, "lr": 0.02, "flip": "none", "checkpoint_seconds": 1.0}
STARTED: list[subprocess.Popen[bytes]] = []
LONG = pytest.mark.skipif("LTPA_CLUSTER" not in os.environ, reason="long form: set LTPA_CLUSTER=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Cluster]:
    """A SLURM of two nodes with four cores and two GPUs each."""
    if reason := slurm.missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="ltpa-slurm-"))
    with slurm.Cluster(folder) as started:
        yield started
        for process in STARTED:  # what a failed test left behind
            process.kill()
    shutil.rmtree(folder)


class Checkout:
    """A copy of the checkout with a configuration of its own.

    Args:
        root: where it goes.
        epochs: how long its trainings are.
        jobs: what the configuration says about jobs.
        others: further keys of the configuration, over those of the mini scale.
    """

    def __init__(self, root: Path, epochs: int, jobs: dict, **others: object) -> None:
        root.mkdir(parents=True)
        for name in PARTS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, root / name)
        with open(root / "config" / "recipes.yaml", "a") as stream:
            stream.write(yaml.safe_dump({"vgg-cluster": {**RECIPE, "epochs": epochs}}))
        values = yaml.safe_load(MINI.read_text())
        values.update(recipes={"vgg": {"default": "vgg-cluster"}}, jobs=jobs, **others)
        (root / "cluster.yaml").write_text(yaml.safe_dump(values))
        self.root, self.results = root, root / "results" / "mini"

    def start(self, target: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in the background; its output goes to `output`."""
        command = [sys.executable, "-m", "snakemake", "--configfile", "cluster.yaml", *arguments, "--", target]
        with open(self.root / "output", "ab") as stream:
            environment = {**os.environ, "PYTHONPATH": ""}
            process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=stream, stderr=stream)
        STARTED.append(process)
        return process

    def submit(self, target: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake with the profile; SLURM is asked often, and for it alone, as there is no accounting here."""
        tuned = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
        return self.start(target, "--profile", "profiles/slurm", "--latency-wait", "20", *tuned, *arguments)

    @property
    def output(self) -> str:
        """What Snakemake said."""
        return (self.root / "output").read_text()

    def finish(self, process: subprocess.Popen[bytes], code: int = 0, seconds: float = 900) -> None:
        """Wait for Snakemake and hold its exit code against `code`."""
        try:
            assert process.wait(seconds) == code, self.output[-6000:]
        finally:
            process.kill()

    def log(self, dataset: str, variant: str, seed: int = 0) -> str:
        """The log of a training as it stands; each start of the job makes it anew."""
        path = self.results / "logs" / "train" / dataset / variant / f"seeds-{seed}.log"
        return path.read_text() if path.is_file() else ""

    def epochs(self, dataset: str, variant: str, seed: int = 0) -> list[int]:
        """The epochs that a training's log names, in order."""
        return [int(number) for number in re.findall(r"epoch (\d+)/", self.log(dataset, variant, seed))]

    def files(self) -> dict[str, bytes]:
        """Tables and networks: what must not depend on where and how often jobs ran."""
        found = [*self.results.glob("tables/*"), *self.results.glob("train/*/*/*/model.safetensors")]
        return {str(path.relative_to(self.results)): path.read_bytes() for path in found}


def until(what: str, ready, process: subprocess.Popen[bytes], seconds: float = 240):
    """Wait for a true value of `ready` while Snakemake runs, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert process.poll() is None, f"Snakemake ended before: {what}"
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.2)
    return value


def job(comment: str, state: str = "RUNNING") -> str:
    """Number of the SLURM job of that comment (rule and wildcards) in that state; empty where there is none."""
    lines = slurm.run("squeue", "-h", "-t", state, "-o", "%i|%k").splitlines()
    return next((number for number, _, found in (line.partition("|") for line in lines) if found == comment), "")


def alike(one: Checkout, other: Checkout, at_least: int) -> None:
    ours, theirs = one.files(), other.files()
    assert ours.keys() == theirs.keys() and len(ours) >= at_least
    assert [name for name in ours if ours[name] != theirs[name]] == []


SHORT = {"variants": ["vgg", "vgg-att2-concat-pc"], "datasets": ["digits-marks"], "tables": ["figure6"], "seeds": [0]}
SHORT_JOBS = {"minutes": {"prepare": 5, "train": 5, "evaluate": 5, "view": 5}, "track": False, "mem_mb": 1500}


def test_a_table_from_requeued_and_cancelled_jobs_is_that_of_a_local_run(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 10, SHORT_JOBS, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, SHORT_JOBS, **SHORT)
    process = distant.submit("figure6", "--set-resources", "train_seeds_0:gpu=1")
    beside = local.start("figure6", "--cores", "1")
    trainings = {variant: f"rule_train_seeds_0_wildcards_digits-marks_{variant}" for variant in SHORT["variants"]}
    until("the second epoch", lambda: distant.epochs("digits-marks", "vgg-att2-concat-pc")[1:], process)
    held = slurm.run("squeue", "-h", "-t", "RUNNING", "-O", "tres-per-job:40").split()
    assert held and set(held) == {"gres:gpu:1"}
    slurm.run("scontrol", "requeue", job(trainings["vgg-att2-concat-pc"]))
    cancelled = job(trainings["vgg"]) or job(trainings["vgg"], "PENDING")
    if cancelled:
        slurm.run("scancel", cancelled)
    distant.finish(process)
    local.finish(beside)
    alike(local, distant, at_least=7)
    resumed = distant.epochs("digits-marks", "vgg-att2-concat-pc")
    assert resumed[0] >= 2, "the requeued training began anew"
    if cancelled:
        assert f"SLURM-job '{cancelled}' failed" in distant.output


STORM = {"variants": ["vgg-att2-concat-pc"], "datasets": ["digits-marks"], "tables": ["figure6"], "seeds": [0, 1]}
HURRIED_JOBS = {**SHORT_JOBS, "minutes": {"prepare": 5, "train": 2, "evaluate": 5, "view": 5}}
STORM_NAME = "rule_train_seeds_{}_wildcards_digits-marks_vgg-att2-concat-pc"


def shown(number: str) -> dict[str, str]:
    """What SLURM knows about a job."""
    words = slurm.run("scontrol", "show", "job", number).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


@LONG
def test_a_training_that_meets_its_time_limit_goes_on_from_its_state(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 60, HURRIED_JOBS, **{**STORM, "seeds": [0]})
    distant = Checkout(tmp_path / "distant", 60, HURRIED_JOBS, **{**STORM, "seeds": [0]})
    distant.finish(distant.submit("figure6", "--default-resources", "slurm_extra='--signal=USR1@100'"), seconds=1800)
    assert warned(100), "no training met its time limit"
    assert distant.epochs("digits-marks", "vgg-att2-concat-pc")[0] >= 2, "the training began anew"
    local.finish(local.start("figure6", "--cores", "2"), seconds=1800)
    alike(local, distant, at_least=6)


@LONG
def test_preemption_and_a_lost_node_change_no_byte(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 60, SHORT_JOBS | {"minutes": {"train": 60}}, **STORM)
    distant = Checkout(tmp_path / "distant", 60, SHORT_JOBS | {"minutes": {"train": 60}}, **STORM)
    process = distant.submit("figure6")

    def trained(seed: int) -> list[int]:
        return distant.epochs("digits-marks", "vgg-att2-concat-pc", seed)[1:]

    until("two epochs of both", lambda: trained(0) and trained(1), process)
    preempted = job(STORM_NAME.format(0))
    node = shown(preempted)["NodeList"]
    urgent = slurm.run("sbatch", "--parsable", "-p", "urgent", "-w", node, "--exclusive", "--wrap", "sleep 5").strip()
    until("the urgent job", lambda: shown(urgent)["JobState"] == "COMPLETED", process)
    said = shown(preempted)
    assert said["Restarts"] == "1" or said["JobState"] in ("FAILED", "PREEMPTED"), said

    lost = until("the other training, again", lambda: job(STORM_NAME.format(1)), process)
    until("its epochs", lambda: trained(1), process)
    node = shown(lost)["NodeList"]
    cluster.kill_node(node)
    other = next(name for name in slurm.NODES if name != node)
    until("the other node", lambda: shown(lost)["NodeList"] == other, process)
    assert shown(lost)["Restarts"] == "1"
    cluster.start_node(node)
    distant.finish(process, seconds=1800)
    assert [distant.epochs("digits-marks", "vgg-att2-concat-pc", seed)[0] >= 2 for seed in (0, 1)] == [True] * 2
    local.finish(local.start("figure6", "--cores", "2"), seconds=1800)
    alike(local, distant, at_least=7)


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


@LONG
def test_an_interrupted_snakemake_cancels_its_jobs_and_the_next_goes_on(cluster: slurm.Cluster, tmp_path: Path):
    local = Checkout(tmp_path / "local", 10, SHORT_JOBS, **SHORT)
    distant = Checkout(tmp_path / "distant", 10, SHORT_JOBS, **SHORT)
    process = distant.submit("figure6")
    until("two epochs", lambda: distant.epochs("digits-marks", "vgg")[1:], process)
    process.send_signal(signal.SIGINT)
    distant.finish(process, code=1, seconds=120)
    deadline = time.monotonic() + 60
    while slurm.run("squeue", "-h"):
        assert time.monotonic() < deadline, "jobs run on"
        time.sleep(0.5)
    distant.finish(distant.submit("figure6"))
    assert distant.epochs("digits-marks", "vgg")[0] >= 2, "the training began anew"
    local.finish(local.start("figure6", "--cores", "2"))
    alike(local, distant, at_least=7)


@LONG
def test_all_tables_of_the_mini_scale_are_those_of_a_local_run(cluster: slurm.Cluster, tmp_path: Path):
    jobs = {"seeds_per_job": 2, "mem_mb": 1500}
    local = Checkout(tmp_path / "local", 1, jobs)
    distant = Checkout(tmp_path / "distant", 1, jobs)
    distant.finish(distant.submit("all_tables"), seconds=3600)
    local.finish(local.start("all_tables", "--cores", "2"), seconds=3600)
    alike(local, distant, at_least=30)
