"""The conda environments hold what their stages import, in the versions of requirements.lock, and serve their rules."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "envs"))
import renew  # noqa: E402

from ltpa.plan import jobs  # noqa: E402
from ltpa.protocols.registry import built_in, module_name  # noqa: E402


def test_the_files_are_what_renewing_them_would_write():
    done = subprocess.run([sys.executable, ROOT / "envs" / "renew.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_rule_runs_in_an_environment_made_for_its_stage():
    """Rules inherit the environment of the rule that they are made from (`use rule ... as`)."""
    environments = {}
    for name in ("data", "networks", "views", "pictures"):
        text = (ROOT / "workflow" / "rules" / f"{name}.smk").read_text()
        for match in re.finditer(
            r"^ *(?:use rule (\w+) as (\w+) with|rule ?(\w*)):\n((?: +.*\n|\n)+)", text, re.MULTILINE
        ):
            parent, made, plain, block = match.groups()
            stated = re.search(r"envs/(\w+\.yaml)", block)
            environment = stated[1] if stated else environments.get(parent)
            for rule in (made or plain,) if made or plain else jobs.STAGES:
                if environment:
                    environments[rule] = environment
    stages = {name: set(stages) for name, (_, stages) in renew.ENVIRONMENTS.items()}
    modules = {"patch_picture": "patch_pictures", "step_picture": "step_pictures"}
    modules |= {name: module_name(name) for name in built_in()}
    served = {modules.get(rule, rule): environment for rule, environment in environments.items()}
    assert served == {stage: name for name, known in stages.items() for stage in known - {"measure", *renew.TRAININGS}}


@pytest.mark.parametrize("stage", ["prepare", "train", "track"])
def test_what_a_stage_imports_when_it_runs_was_found(stage: str):
    needed = {"prepare": {"numpy", "requests", "pillow"}, "train": {"torch", "safetensors"}, "track": {"mlflow"}}
    stages = [stage, *(renew.TRAININGS if stage == "train" else [])]
    assert needed[stage] <= renew.imported(stages)
