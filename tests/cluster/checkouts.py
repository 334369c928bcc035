"""Checkouts to run on a SLURM and the means to look at it: what the tests of this folder share.

`LTPA_CLUSTER=1` asks for the long forms, `LTPA_CLUSTER=demo` for the tables of the demo beside them.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm
import yaml

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "tests" / "workflow" / "mini.yaml"
PARTS = ("Snakefile", "ltpa", "config", "workflow", "profiles", "envs")
RECIPE = {"epochs": 6, "batch_size": 32, "lr": 0.02, "flip": "none", "checkpoint_seconds": 1.0}
STARTED: list[subprocess.Popen[bytes]] = []
LONG = pytest.mark.skipif("LTPA_CLUSTER" not in os.environ, reason="long form: set LTPA_CLUSTER=1")

SHORT = {"variants": ["vgg", "vgg-att2-concat-pc"], "datasets": ["digits-marks"], "tables": ["figure6"], "seeds": [0]}
SHORT_JOBS = {"minutes": {"prepare": 5, "train": 5, "evaluate": 5, "view": 5}, "track": False, "mem_mb": 1500}


def copy_parts(root: Path) -> None:
    """Copy what a run needs from the checkout under test to a folder that is not there yet."""
    root.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, root / name)


class Checkout:
    """A copy of the checkout with a configuration of its own.

    Args:
        root: where it goes.
        epochs: how long its trainings are.
        jobs: what the configuration says about jobs.
        others: further keys of the configuration, over those of the mini scale.
    """

    def __init__(self, root: Path, epochs: int, jobs: dict, **others: object) -> None:
        copy_parts(root)
        with open(root / "config" / "recipes.yaml", "a") as stream:
            stream.write(yaml.safe_dump({"vgg-cluster": {**RECIPE, "epochs": epochs}}))
        values = yaml.safe_load(MINI.read_text())
        values.update(recipes={**values["recipes"], "vgg": {"default": "vgg-cluster"}}, jobs=jobs, **others)
        (root / "cluster.yaml").write_text(yaml.safe_dump(values))
        self.root, self.results = root, root / "results" / "mini"

    def start(self, targets: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in the background; blanks stand between targets, and its output goes to `output`."""
        heeding = ["env", "--default-signal=INT"]  # shells start background processes deaf to Ctrl-C
        command = [*heeding, sys.executable, "-m", "snakemake", "--configfile", "cluster.yaml"]
        command += [*arguments, "--", *targets.split()]
        with open(self.root / "output", "ab") as stream:
            environment = {**os.environ, "PYTHONPATH": ""}
            process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=stream, stderr=stream)
        STARTED.append(process)
        return process

    def submit(self, targets: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake with the profile; SLURM is asked often, and for it alone, as there is no accounting here."""
        tuned = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
        return self.start(targets, "--profile", "profiles/slurm", "--latency-wait", "20", *tuned, *arguments)

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
        path = self.results / "logs" / "train" / dataset / variant / f"seed-{seed}.log"
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


def shown(number: str) -> dict[str, str]:
    """What SLURM knows about a job."""
    words = slurm.run("scontrol", "show", "job", number).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def alike(one: Checkout, other: Checkout, at_least: int) -> None:
    """Hold tables and networks of two runs against one another, byte for byte."""
    ours, theirs = one.files(), other.files()
    assert ours.keys() == theirs.keys() and len(ours) >= at_least
    assert [name for name in ours if ours[name] != theirs[name]] == []
