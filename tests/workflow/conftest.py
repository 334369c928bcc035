"""One finished mini run of the whole DAG, in a copy of the checkout whose path has spaces and accents."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
MINI = Path(__file__).with_name("mini.yaml")
PARTS = ("Snakefile", "ltpa", "config", "workflow", "profiles", "envs")


@dataclasses.dataclass
class Checkout:
    """A copy of the checkout and the means to run Snakemake in it."""

    root: Path
    python: str = sys.executable

    @property
    def results(self) -> Path:
        return self.root / "results" / "mini"

    def snakemake(
        self, *arguments: str, cores: int = 2, config: Path = MINI, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake, with environment `variables` set; its output and errors come back together as `stdout`."""
        command = [self.python, "-m", "snakemake", "--configfile", str(config), "--cores", str(cores), *arguments]
        environment = {**os.environ, "PYTHONPATH": "", "COLUMNS": "200", **(variables or {})}
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )

    def ltpa(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `ltpa`; output and errors come back together as `stdout`."""
        command = [self.python, "-m", "ltpa", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        return subprocess.run(
            command, cwd=self.root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def planned(self, *arguments: str, config: Path = MINI) -> dict[str, int]:
        """Rules that a dry run would execute, and how often."""
        output = self.snakemake("-n", *arguments, "-q", "rules", config=config)
        assert output.returncode == 0, output.stdout
        counts = {}
        for line in output.stdout.split("Job stats:")[-1].splitlines():
            words = line.split()
            if len(words) == 2 and words[1].isdigit():
                counts[words[0]] = int(words[1])
        counts.pop("total", None)
        return counts


def copy_checkout(target: Path) -> Checkout:
    """Copy what a run needs from the checkout under test."""
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return Checkout(target)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which `all_tables` has run on the mini configuration: once for all workers, a copy for each."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    made, mark = shared / "made once" / "a clone, façade", shared / "made once" / "done"
    with FileLock(shared / "made once.lock"):
        if not mark.exists():
            shutil.rmtree(made, ignore_errors=True)
            done = copy_checkout(made).snakemake("all_tables")
            assert done.returncode == 0, done.stdout
            mark.touch()
    return Checkout(shutil.copytree(made, tmp_path_factory.mktemp("finished") / "a clone, façade"))


@pytest.fixture
def spoiled(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished checkout that a test may run in and damage."""
    shutil.copytree(finished.root, tmp_path / "spoiled")
    return Checkout(tmp_path / "spoiled")


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout in which nothing has run."""
    return copy_checkout(tmp_path / "clone")
