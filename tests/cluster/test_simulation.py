"""The stand-ins of simulate.py serve every job of the paper's DAG, without a SLURM and without sleeping."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import simulate

from ltpa.plan import Plan, views
from ltpa.plan.config import load_config

pytestmark = pytest.mark.workflow


def test_every_job_of_the_paper_has_a_stand_in(tmp_path: Path):
    run = tmp_path / "run"
    command = simulate.prepare(run, seeds=1, seconds_per_minute=0)
    command += ["--cores", "64", "--resources", "gpu=64", "--", "all_tables"]
    done = subprocess.run(command, cwd=run, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = [json.loads(line) for line in (run / "simulation.jsonl").read_text().splitlines()]
    plan = Plan(load_config(run / "config.yaml"), "config.yaml", run)
    stages = {found.stage for found in views.all_runs(plan)}
    seen = Counter(job["stage"] for job in jobs)
    assert stages <= seen.keys() - set(simulate.NO_GPU)
    assert seen["prepare"] == len(plan.config.datasets) and seen["table"] == len(plan.config.tables)
    assert simulate.longest_chain(jobs) >= 0
