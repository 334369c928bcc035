"""The SLURM of the tests, as a pytest plugin: one on a machine at a time."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
from checkouts import STARTED


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Cluster]:
    """A SLURM of two nodes with four cores and two GPUs each."""
    with open(Path(tempfile.gettempdir(), "ltpa-slurm.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a machine has one SLURM, and test files may run side by side
        if reason := slurm.missing():
            pytest.skip(reason)
        folder = Path(tempfile.mkdtemp(prefix="ltpa-slurm-"))
        with slurm.Cluster(folder) as started:
            yield started
            for process in STARTED:  # what a failed test left behind
                process.kill()
        shutil.rmtree(folder)
