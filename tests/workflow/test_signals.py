"""Snakemake asked to end before its first job, and after one that was killed."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import MINI, Checkout

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
def test_before_the_first_job_it_leaves_in_a_line_and_unlocks_the_folder(fresh: Checkout, number: int, code: int):
    running = fresh.root / ".snakemake" / "ltpa-running.lock"  # there as soon as the Snakefile is read
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--configfile", str(MINI), "--cores", "1", "table1"],
        cwd=fresh.root,
        env={**os.environ, "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while not running.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=180)
    assert process.returncode == code and "Traceback" not in output, output
    assert output.splitlines()[-1] == f"ltpa: {signal.Signals(number).name}: stopped before any job was started"
    assert not list(fresh.root.glob(".snakemake/locks/*"))


def test_the_lock_of_a_process_that_is_gone_is_named_in_the_last_line(fresh: Checkout):
    locks = fresh.root / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    output = fresh.root / "results" / "mini" / "data" / "digits10" / "manifest.json"
    (locks / "0.output.lock").write_text(f"{output.relative_to(fresh.root)}\n")
    refused = fresh.snakemake(str(output.relative_to(fresh.root)))
    assert refused.returncode != 0 and "LockException" in refused.stdout
    assert refused.stdout.splitlines()[-1].endswith("`snakemake --unlock`, then the same command goes on")
    with open(locks.parent / "ltpa-running.lock", "w") as living:
        fcntl.flock(living, fcntl.LOCK_SH)
        assert "a Snakemake that is gone" not in fresh.snakemake(str(output.relative_to(fresh.root))).stdout
    assert "a Snakemake that is gone" not in fresh.snakemake("--unlock").stdout
