"""Snakemake killed with all its jobs, and killed alone: one documented command line brings the same tables.

Three kills of the whole process group; LTPA_FULL=1 makes it ten.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10 if os.environ.get("LTPA_FULL") else 3
CONFIG = {
    "scale": {"name": "killed", "networks": {"vgg": {"width": 0.0625, "dropout": 0.0, "bn_weight": "one"}}},
    "seeds": [0, 1],
    "variants": ["vgg", "vgg-gap"],
    "datasets": ["digits10"],
    "tables": ["table1"],
    "jobs": {"track": False},
    "recipes": {"vgg": {"default": "vgg-killed"}},
}
RECIPE = "\nvgg-killed: {epochs: 2, batch_size: 32, lr: 0.02, flip: none, checkpoint_seconds: 0.3}\n"


class Clone:
    """A copy of the checkout with a configuration of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.results = root, root / "results" / "killed"
        for name in ("Snakefile", "ltpa", "config", "workflow", "profiles", "envs"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                root.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, root / name)
        (root / "killed.yaml").write_text(yaml.safe_dump(CONFIG))
        with open(root / "config" / "recipes.yaml", "a") as stream:
            stream.write(RECIPE)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Snakemake as the leader of a process group of its own."""
        command = [sys.executable, "-m", "snakemake", "--configfile", "killed.yaml", "--cores", "2", *arguments]
        with open(self.root / "output", "a") as output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": ""},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def resume(self) -> None:
        """What docs/troubleshooting.md says: `snakemake --unlock && snakemake table1`."""
        assert self.start("--unlock").wait(timeout=300) == 0, (self.root / "output").read_text()
        assert self.start("--", "table1").wait(timeout=600) == 0, (self.root / "output").read_text()

    def tables(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.results / "tables").iterdir())}

    def models(self) -> dict[str, bytes]:
        found = self.results.glob("train/*/*/*/model.safetensors")
        return {str(path.relative_to(self.results)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def unbroken_run(tmp_path_factory) -> tuple[Clone, float]:
    clone = Clone(tmp_path_factory.mktemp("unbroken") / "clone")
    started = time.monotonic()
    assert clone.start("--", "table1").wait(timeout=600) == 0, (clone.root / "output").read_text()
    return clone, time.monotonic() - started


def test_killed_with_all_jobs_again_and_again_the_tables_come_out_the_same(unbroken_run, tmp_path):
    unbroken, seconds = unbroken_run
    clone, chooser = Clone(tmp_path / "clone"), random.Random(3)
    for _ in range(KILLS):
        started = clone.start("--", "table1")
        time.sleep(chooser.uniform(0.2, 0.8) * seconds)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        assert clone.start("--unlock").wait(timeout=300) == 0
        if (clone.results / "tables").exists():
            shutil.rmtree(clone.results)  # it had ended: begin anew
    clone.resume()
    assert clone.tables() == unbroken.tables()
    assert clone.models() == unbroken.models()


def test_killed_alone_its_orphans_are_never_joined_by_second_writers(unbroken_run, tmp_path):
    unbroken, _ = unbroken_run
    clone = Clone(tmp_path / "clone")
    started = clone.start("--", "table1")
    while not list(clone.results.glob("state/train/*/metrics.jsonl")):
        assert started.poll() is None, (clone.root / "output").read_text()
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    clone.resume()
    assert clone.tables() == unbroken.tables()
    assert clone.models() == unbroken.models()
    for log in clone.results.glob("state/train/*/train.log"):
        pids = [line.split()[2] for line in log.read_text().splitlines()]
        turns = [pid for pid, _ in itertools.groupby(pids)]
        assert len(turns) == len(set(turns)), f"two processes trained at once: {pids}"
