"""The SLURM profile without a SLURM: what its jobs ask of sbatch, held against a stand-in that only writes it down.

tests/cluster runs the profile on a real SLURM.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import MINI, ROOT, Checkout

from ltpa.plan.jobs import STAGES

pytestmark = pytest.mark.workflow

STANDINS = {
    "sbatch": 'exec 9>> "$CALLS.lock"; flock 9; printf "%s\\n" "$*" >> "$CALLS"; wc -l < "$CALLS"',  # one at a time
    "squeue": """case "$*" in *%T*) seq 9 | sed -n '2!s/$/|FAILED/p' ;; esac""",  # it knows nothing of job 2
    "scontrol": 'echo "MinJobAge = 300 sec"',
    "sacctmgr": "echo my-account",
    "scancel": "true",
}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the command line of every submission to come."""
    folder = tmp_path / "standins"
    folder.mkdir()
    for name, body in STANDINS.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def profile(checkout: Checkout, tmp_path: Path) -> Path:
    """The profile as a user edits it: the lines about the cluster without their `# `."""
    text = (checkout.root / "profiles" / "slurm" / "profile.yaml").read_text()
    edited = "\n".join(line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in text.splitlines())
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "profile.yaml").write_text(edited)
    return tmp_path / "edited"


def submitted(calls: Path, rule: str) -> list[str]:
    """The command lines of a rule's submissions."""
    return [line for line in calls.read_text().splitlines() if f"rule_{rule}_" in line]


def submit(checkout: Checkout, tmp_path: Path, *targets: str, **config: object) -> subprocess.CompletedProcess[str]:
    """Run the edited profile over the mini configuration with some of its keys replaced."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({**yaml.safe_load(MINI.read_text()), **config}))
    command = [
        sys.executable, "-m", "snakemake", "--profile", str(profile(checkout, tmp_path)), "--configfile",
        str(tmp_path / "cluster.yaml"), "--slurm-init-seconds-before-status-checks", "1", "--slurm-status-command",
        "squeue", "--retries", "1", "--", *(f"results/mini/{target}" for target in targets),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, timeout=300)


def test_what_jobs_ask_for_and_that_a_retry_of_failed_and_lost_ones_asks_for_more(
    fresh: Checkout, tmp_path: Path, calls: Path
):
    patience = fresh.root / "ltpa" / "runtime" / "lost_jobs.py"
    patience.write_text(patience.read_text().replace("PATIENCE_INTERVALS = 10", "PATIENCE_INTERVALS = 1"))
    manifest = fresh.results / "data" / "digits10" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    jobs = {"gpus": 1, "threads": 4, "mem_mb": 3000, "minutes": {"train": 100, "prepare": 20}, "max_growth": 3}
    targets = ("train/digits10/vgg/seed-0/result.json", "data/digits20/manifest.json")
    done = submit(fresh, tmp_path, *targets, jobs=jobs)
    assert done.returncode == 1, done.stderr  # the stand-in fails every job, and loses the second
    assert "SLURM-job '2' is lost: SLURM answered, and had it neither waiting nor running" in done.stderr
    assert "SLURM-job '1' failed" in done.stderr and "SLURM-job '1' is lost" not in done.stderr
    assert calls.is_file(), done.stderr

    trainings = submitted(calls, "train")
    assert len(trainings) == 2
    for words in ("--gpus=a100:1", "-p gpu", "-A my-account", "--cpus-per-task=4", "--requeue", "--signal=USR1@120"):
        assert all(words in line for line in trainings), words
    for line, words in zip(trainings, (("--mem 3000", "-t 100 "), ("--mem 6000", "-t 200 ")), strict=True):
        assert all(word in line for word in words), line

    preparations = submitted(calls, "prepare")
    assert len(preparations) == 2
    assert "-p cpu" in preparations[0] and "-t 20 " in preparations[0]
    assert "gpu" not in preparations[0].split("--wrap")[0]


def test_partition_gpu_and_memory_go_by_the_name_of_the_rule(fresh: Checkout, tmp_path: Path, calls: Path):
    """A two-stream and a patch job too, whose rules once looked like those of views."""
    lines = (fresh.root / "profiles" / "slurm" / "profile.yaml").read_text()
    rule = next(line for line in lines.splitlines() if "# patches:" in line)
    more = rule.replace("\"'a100'\"}", "\"'a100'\", mem_mb: 4321}")
    (fresh.root / "profiles" / "slurm" / "profile.yaml").write_text(lines.replace(rule, more))
    for path in (
        "data/digits-marks/manifest.json",
        "train/digits-marks/vgg-gap/seed-0/model.safetensors",
        "train/digits-marks/vgg-gap/seed-0/result.json",
    ):
        (fresh.results / path).parent.mkdir(parents=True, exist_ok=True)
        (fresh.results / path).write_text("{}")
    targets = ("train/digits-marks/vgg19/seed-0/result.json", "patches/digits-marks/protolite/seed-0/result.json")
    done = submit(
        fresh, tmp_path, *targets, jobs={"gpus": 1}, variants=[*yaml.safe_load(MINI.read_text())["variants"], "vgg19"]
    )
    assert calls.is_file(), done.stderr
    for name, memory in (("train", 2000), ("patches", 4321)):
        first = submitted(calls, name)[0]
        assert all(words in first for words in ("-p gpu", "--gpus=a100:1", f"--mem {memory}")), first


def test_the_profile_names_rules_that_there_are():
    text = (ROOT / "profiles" / "slurm" / "profile.yaml").read_text()
    named = re.findall(r"^  # (\w+): \{slurm_partition", text, re.MULTILINE)
    assert {"train", "patches"} <= set(named) <= set(STAGES)


def test_the_warning_before_the_time_limit_reaches_the_training_and_ends_nothing_else(fresh: Checkout, tmp_path: Path):
    """SLURM sends it to all processes of a job's steps: Snakemake must live on and see its job end."""
    with open(fresh.root / "config" / "recipes.yaml", "a") as stream:
        stream.write(yaml.safe_dump({"vgg-long": {"epochs": 1000, "batch_size": 32, "lr": 0.01}}))
    values = {**yaml.safe_load(MINI.read_text()), "recipes": {"vgg": {"default": "vgg-long"}}, "seeds": [0]}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(values))
    target = fresh.results / "train" / "digits-marks" / "vgg" / "seed-0" / "result.json"
    command = [sys.executable, "-m", "snakemake", "--configfile", str(tmp_path / "long.yaml"), "--cores", "1", "--"]
    process = subprocess.Popen(
        [*command, str(target.relative_to(fresh.root))], cwd=fresh.root, env={**os.environ, "PYTHONPATH": ""},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    log = fresh.results / "logs" / "train" / "digits-marks" / "vgg" / "seed-0.log"
    try:
        deadline = time.monotonic() + 180
        while not (log.is_file() and "epoch 1/" in log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, "no training began"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGUSR1)
        said, _ = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, said
    assert "Error in rule train:" in said and "At least one job did not complete successfully" in said
    assert "the same command resumes it" in log.read_text()
    assert list(fresh.results.glob("state/train/*/*/step-*.pt"))


def test_every_key_of_the_profile_is_commented(fresh: Checkout):
    lines = (fresh.root / "profiles" / "slurm" / "profile.yaml").read_text().splitlines()
    bare = [line for line in lines if line.strip() and "#" not in line]
    assert not bare
