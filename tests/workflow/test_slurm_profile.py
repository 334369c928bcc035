"""The SLURM profile without a SLURM: what its jobs ask of sbatch, held against a stand-in that only writes it down.

tests/cluster runs the profile on a real SLURM.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import MINI, ROOT, Checkout

pytestmark = pytest.mark.workflow

STANDINS = {
    "sbatch": 'printf "%s\\n" "$*" >> "$CALLS"; wc -l < "$CALLS"',
    "squeue": 'seq 9 | sed "s/$/|FAILED/"',
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


def submitted(checkout: Checkout, tmp_path: Path, calls: Path, retries: int, target: str) -> list[str]:
    config = tmp_path / "cluster.yaml"
    jobs = {"gpus": 1, "threads": 4, "mem_mb": 3000, "minutes": {"train": 100, "prepare": 20}, "max_growth": 3}
    config.write_text(yaml.safe_dump({**yaml.safe_load(MINI.read_text()), "jobs": jobs}))
    command = [
        sys.executable, "-m", "snakemake", "--profile", str(profile(checkout, tmp_path)), "--configfile", str(config),
        "--slurm-init-seconds-before-status-checks", "1", "--slurm-status-command", "squeue",
        "--retries", str(retries), "--", target,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr  # the stand-in fails every job
    assert calls.is_file(), done.stderr
    return calls.read_text().splitlines()


def test_a_training_asks_for_a_gpu_and_a_retry_for_more_time_and_memory(fresh: Checkout, tmp_path: Path, calls: Path):
    manifest = fresh.results / "data" / "digits10" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    found = submitted(fresh, tmp_path, calls, 1, "results/mini/train/digits10/vgg/seed-0/result.json")
    assert len(found) == 2
    for words in ("--gpus=a100:1", "-p gpu", "-A my-account", "--cpus-per-task=4", "--requeue", "--signal=USR1@120"):
        assert all(words in line for line in found), words
    for line, words in zip(found, (("--mem 3000", "-t 100 "), ("--mem 6000", "-t 200 ")), strict=True):
        assert all(word in line for word in words), line


def test_a_job_without_a_network_asks_for_no_gpu(fresh: Checkout, tmp_path: Path, calls: Path):
    found = submitted(fresh, tmp_path, calls, 0, "results/mini/data/digits10/manifest.json")
    assert len(found) == 1
    assert "-p cpu" in found[0] and "-t 20 " in found[0] and "gpu" not in found[0].split("--wrap")[0]


def test_every_rule_asks_for_memory_and_time_and_hands_signals_to_its_job():
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in re.split(r"\n\s*rule\b", path.read_text())[1:]:
            if "-m ltpa" in rule:
                for words in ("mem_mb=grown(", "runtime=grown(", "exec {PYTHON} -m ltpa"):
                    assert words in rule, f"{path.name}: {words} is missing in\n{rule}"


def test_every_key_of_the_profile_is_commented(fresh: Checkout):
    lines = (fresh.root / "profiles" / "slurm" / "profile.yaml").read_text().splitlines()
    bare = [line for line in lines if line.strip() and "#" not in line]
    assert not bare
