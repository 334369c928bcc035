"""Disks that are too small: real ones, tmpfs of several sizes. Needs root, to mount them."""

import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from trainings import copy_data, model_hash, small_spec

from ltpa.core.errors import DiskFullError
from ltpa.core.files import atomic_path
from ltpa.data.rows import RowWriter
from ltpa.evaluation.features import HalfFiles
from ltpa.report.overlays import save_figure
from ltpa.runtime import checkpoint

KIB = 1024


@pytest.fixture
def small_disk(tmp_path):
    """A way to mount a tmpfs of so many KiB at a folder, and to change its size; unmounted afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kib}k", *options]), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root and mount")
    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


@pytest.fixture(scope="module")
def state_bytes(server, data, tmp_path_factory) -> int:
    """How large a saved state of the small training is."""
    results = copy_data(data, tmp_path_factory.mktemp("measured") / "results")
    child, sizes = server.train(small_spec(), results), []
    while not sizes:
        time.sleep(0.01)
        sizes = [path.stat().st_size for path in results.glob("state/train/*/*/step-*.pt")]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return sizes[0]


# What is left beside the dataset: nothing to speak of; half a state; one state; two states and no network; and so on.
@pytest.mark.parametrize("share", [0.1, 0.5, 1.3, 2.2, 3.1, 4.5])
def test_a_full_disk_costs_no_state_and_more_space_finishes_the_training(
    server, data, unbroken, small_disk, state_bytes, share
):
    spec, disk = small_spec(), small_disk(64 * KIB)
    results = copy_data(data, disk / "results")
    used = subprocess.run(["du", "-sk", str(disk)], capture_output=True, text=True, check=True)
    small_disk(int(used.stdout.split()[0]) + round(share * state_bytes / KIB), "remount")
    output = disk.parent / "output"
    command = ["train", "--spec", spec.to_json(), "--results", str(results), "--seed", "0"]
    code = server.start(command, output).wait()
    text = output.read_text()
    assert code in (0, 7), text
    assert "Traceback" not in text
    if code:
        said = re.findall(
            r"ltpa: error: (\S+): cannot write.*No space left on device.*: (\d+ bytes|\d+ are free)", text
        )
        assert said and said[-1][0].startswith(str(disk)), text
        for states in results.glob("state/train/*/processor-*"):
            if checkpoint.has_states(states):
                assert checkpoint.load_newest(states, states.parent.name) is not None, "the last state is not intact"
    small_disk(64 * KIB, "remount")
    assert server.start(command, output).wait() == 0, output.read_text()
    assert model_hash(results, spec) == unbroken


def save_array(folder):
    with atomic_path(folder / "file", 400_000) as temporary, open(temporary, "wb") as stream:
        np.save(stream, np.zeros(50_000))


def append_rows(folder):
    with RowWriter(folder / "file", (50_000,), np.float64) as rows:
        rows.append(np.zeros((1, 50_000)))


def write_table(folder):
    with atomic_path(folder / "file") as temporary:
        pq.write_table(pa.table({"a": np.random.default_rng(0).random(50_000)}), temporary)


def draw(folder):
    figure = Figure(figsize=(8, 8))
    figure.subplots().imshow(np.random.default_rng(0).random((400, 400)), interpolation="none")
    save_figure(figure, folder / "file.png")


def keep_features(folder):
    HalfFiles(folder).put("file", np.zeros((1000, 200), dtype=np.float32))


@pytest.mark.parametrize("write", [save_array, append_rows, write_table, draw, keep_features])
def test_whoever_writes_the_message_has_path_and_bytes(small_disk, write):
    """Libraries say it in ways of their own: NumPy without an error number, others after a part was written."""
    disk = small_disk(64)
    with pytest.raises(
        DiskFullError, match=r"disk/file.*: cannot write \(No space.*: (more than )?\d+ bytes are needed"
    ):
        write(disk)
    assert not [path for path in disk.iterdir() if write is not keep_features]
