"""The conda environments hold what their stages import, in the versions of requirements.lock, and serve their rules."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "envs"))
import renew  # noqa: E402


def test_the_files_are_what_renewing_them_would_write():
    done = subprocess.run([sys.executable, ROOT / "envs" / "renew.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_rule_runs_in_an_environment_made_for_its_stage():
    stages = {name: set(stages) for name, (_, stages) in renew.ENVIRONMENTS.items()}
    seen = set()
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for block in re.split(r"\n\s*rule\b", path.read_text())[1:]:
            if "{LTPA}" not in block:
                continue
            environment = re.search(r"envs/(\w+\.yaml)", block)[1]
            stage = re.search(r"code=code\((?:\"(\w+)\"|stage)\)", block)[1]
            served = {stage} if stage else set(renew.EVALUATIONS)
            assert served <= stages[environment], f"{path.name}: {served} in {environment}"
            seen |= served
    assert seen == set.union(*stages.values())


@pytest.mark.parametrize("stage", ["prepare", "train", "track"])
def test_what_a_stage_imports_when_it_runs_was_found(stage: str):
    needed = {"prepare": {"numpy", "requests", "pillow"}, "train": {"torch", "safetensors"}, "track": {"mlflow"}}
    assert needed[stage] <= renew.imported([stage])
