"""`--sdm conda` and `--use-conda` end to end, with a stand-in for conda (`conda_standin.py`); and without any conda."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import conda_standin
import pytest
import yaml
from conftest import MINI, Checkout

pytestmark = pytest.mark.workflow

ONE_TABLE = {"variants": ["vgg"], "datasets": ["digits-marks"], "tables": ["figure6"], "seeds": [0]}


def run(checkout: Checkout, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    values = {**yaml.safe_load(MINI.read_text()), **ONE_TABLE}
    (checkout.root / "one.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "one.yaml", *arguments]
    environment = {**os.environ, "PYTHONPATH": "", "PATH": path}
    return subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, timeout=600)


def tables(checkout: Checkout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (checkout.results / "tables").iterdir()}


def test_jobs_run_in_the_declared_environments_and_give_the_same_table(fresh: Checkout, tmp_path: Path):
    path = f"{conda_standin.install(tmp_path / 'conda')}{os.pathsep}{os.environ['PATH']}"
    done = run(fresh, path, "--use-conda", "figure6")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "conda" / "calls").read_text()
    assert calls.count("env create") == 2
    made = [path for path in (fresh.root / ".snakemake" / "conda").iterdir() if (path / "bin" / "python").exists()]
    assert len(made) == 2  # one for torch, one for tables
    first = tables(fresh)
    assert len(first) == 5
    listed = run(fresh, path, "--sdm", "conda", "-n", "--", "figure6")
    assert "Nothing to be done" in listed.stdout + listed.stderr
    shutil.rmtree(fresh.results)
    plain = run(fresh, os.environ["PATH"], "--", "figure6")
    assert plain.returncode == 0, plain.stderr
    assert tables(fresh) == first


def test_a_pin_that_the_environment_does_not_hold_stops_the_run(fresh: Checkout, tmp_path: Path):
    path = f"{conda_standin.install(tmp_path / 'conda')}{os.pathsep}{os.environ['PATH']}"
    environment = fresh.root / "envs" / "torch.yaml"
    environment.write_text(environment.read_text().replace("numpy==", "numpy==9"))
    done = run(fresh, path, "--sdm", "conda", "--", "results/mini/data/digits-marks/manifest.json")
    assert done.returncode != 0 and "numpy==9" in done.stdout + done.stderr


def test_without_conda_the_user_is_told_what_to_install(fresh: Checkout):
    found = os.environ["PATH"].split(os.pathsep)
    bare = os.pathsep.join(folder for folder in found if not (Path(folder) / "conda").exists())
    done = run(fresh, bare, "--sdm", "conda", "--", "figure6")
    assert done.returncode != 0
    assert "Is conda installed and accessible?" in done.stderr
    documented = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
    assert "Error running conda info. Is conda installed and accessible?" in documented.read_text()
    assert not fresh.results.exists()
