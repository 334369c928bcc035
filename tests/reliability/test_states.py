"""Saved states and networks under fire: crashes at every step of a save, single flipped bits, foreign files."""

import json
import random
import subprocess
import sys

import pytest
import torch

from ltpa.core.errors import DiskFullError, ModelError
from ltpa.models import create_model, load, save_model
from ltpa.runtime import checkpoint

FLIPS = 300

# Saves in forked children that die at line 0, 1, 2, ... of the code that saves, and looks at what they leave.
CRASHES = """
import json, os, sys
from pathlib import Path
import torch
from ltpa.core import files
from ltpa.runtime import checkpoint

CODE = {checkpoint.__file__, files.__file__}
payload = {"weights": torch.arange(300_000.0)}  # more than one block

def die_at(last):
    seen = [0]
    def trace(frame, event, argument):
        if frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            if seen[0] == last:
                os._exit(9)
            seen[0] += 1
        return trace
    sys.settrace(trace)

crashes, found = 0, []
while True:
    folder = Path(sys.argv[1]) / str(crashes)
    for step in (1, 2):
        checkpoint.save(folder, step, {**payload, "step": step}, "key")
    if os.fork() == 0:
        die_at(crashes)
        checkpoint.save(folder, 3, {**payload, "step": 3}, "key")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    loaded = checkpoint.load_newest(folder, "key")
    found.append(loaded["step"] if torch.equal(loaded["weights"], payload["weights"]) else 0)
    if crashes % 10 == 0:
        checkpoint.save(folder, 4, {**payload, "step": 4}, "key")
        assert checkpoint.load_newest(folder, "key")["step"] == 4
    if status == 0:
        break
    crashes += 1
    for path in folder.iterdir():
        path.unlink()
print(json.dumps([crashes, found]))
"""


def test_a_crash_at_any_step_of_a_save_leaves_a_state_to_load(tmp_path):
    done = subprocess.run([sys.executable, "-c", CRASHES, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    crashes, found = json.loads(done.stdout)
    assert crashes >= 30
    assert set(found) == {2, 3} and found == sorted(found), "first the state before, then the new one"


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_state_is_refused_and_the_one_before_used(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, {"epoch": 1}, "key")
    newest = checkpoint.save(tmp_path, 2, {"epoch": 2, "weights": torch.randn(50, 50)}, "key")
    files = (newest, newest.with_suffix(".sha256"))
    chooser, refused = random.Random(0), 0
    for number in range(FLIPS):
        path = files[number % 10 == 0]
        data = path.read_bytes()
        path.write_bytes(flipped(data, chooser.randrange(8 * len(data))))
        caplog.clear()
        refused += checkpoint.load_newest(tmp_path, "key") == {"epoch": 1} and newest.name in caplog.text
        path.write_bytes(data)
    assert refused == FLIPS
    assert checkpoint.load_newest(tmp_path, "key")["epoch"] == 2


def test_every_flipped_bit_of_a_network_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    model = create_model("vgg-att2-concat-pc", 2, 20, 1 / 16)
    save_model(
        path,
        model,
        variant="vgg-att2-concat-pc",
        architecture=model.architecture,
        num_classes=2,
        image_size=20,
        classes=["a", "b"],
    )
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    chooser, refused = random.Random(0), 0
    for number in range(FLIPS):  # half of them in the header, where a reader might not care
        path.write_bytes(flipped(data, chooser.randrange(8 * (header if number % 2 else len(data)))))
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            load(path)
        refused += 1
    assert refused == FLIPS
    path.write_bytes(data)
    load(path)
    with pytest.raises(ModelError, match="not the network that its record tells of"):
        load(path, expect_sha256="0" * 64)


def test_truncated_foreign_and_unsealed_states_are_refused_by_name(tmp_path, caplog):
    assert checkpoint.load_newest(tmp_path, "key") is None
    checkpoint.save(tmp_path, 1, {"epoch": 1}, "key")
    for step, spoil in ((2, lambda p: p.write_bytes(p.read_bytes()[:-1])), (3, lambda p: p.write_bytes(b"")),
                        (4, lambda p: p.with_suffix(".sha256").unlink())):  # fmt: skip
        spoil(checkpoint.save(tmp_path / "other", step, {"epoch": step}, "key"))
        for path in (tmp_path / "other").iterdir():
            path.rename(tmp_path / path.name)
        assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 1}
        assert f"step-{step:09d}.pt: saved state refused, its SHA-256 does not match" in caplog.text
    put_foreign(tmp_path, 5)
    assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 1}, "what is damaged does not count as the one before"
    assert "step-000000005.pt: saved state refused, it belongs to another run" in caplog.text


def put_foreign(folder, step):
    """A whole state of another run, copied into the folder by hand."""
    for path in checkpoint.save(folder / "foreign", step, {"epoch": -1}, "another").parent.iterdir():
        path.rename(folder / path.name)


def test_a_foreign_state_neither_stands_for_the_own_nor_counts_as_the_one_before(tmp_path):
    checkpoint.save(tmp_path, 1, {"epoch": 1}, "key")
    put_foreign(tmp_path, 2)
    newest = checkpoint.save(tmp_path, 3, {"epoch": 3}, "key")
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-000000001.pt", "step-000000003.pt"]
    newest.write_bytes(b"damaged")
    assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 1}
    put_foreign(tmp_path, 4)
    checkpoint.save(tmp_path, 4, {"epoch": 4}, "key")
    assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 4}


def test_what_is_kept_is_the_newest_and_the_one_before(tmp_path):
    for step in (3, 5, 9):
        checkpoint.save(tmp_path, step, {"epoch": step}, "key")
    (tmp_path / "step-000000009.pt").write_bytes(b"damaged")
    checkpoint.save(tmp_path, 7, {"epoch": 7}, "key")  # resumed from 5
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        f"step-00000000{step}.{suffix}" for step in (5, 7) for suffix in ("pt", "sha256")
    ]


def test_a_save_that_reads_back_wrong_is_taken_back(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"epoch": 1}, "key")
    monkeypatch.setattr(checkpoint, "_read_back", lambda path: "0" * 64)
    with pytest.raises(Exception, match=r"step-000000002\.pt: not read back as it was written"):
        checkpoint.save(tmp_path, 2, {"epoch": 2}, "key")
    assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 1}


def test_a_state_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    """Power cuts cannot be staged here; the order of the calls that guard against them can be seen."""
    import os
    from pathlib import Path

    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(Path(f"/proc/self/fd/{fd}").resolve().name), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append(f"-> {to.name}"), replace(self, to))[1])
    checkpoint.save(tmp_path / "state", 1, {"epoch": 1}, "key")
    assert [call for call in calls if not call.startswith(".")] == [
        "-> step-000000001.pt", "state", "-> step-000000001.sha256", "state"
    ]  # fmt: skip
    assert calls[0].startswith(".step-000000001.pt.") and calls[3].startswith(".step-000000001.sha256.")


def test_a_full_disk_is_one_line_with_path_and_bytes(tmp_path, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save(tmp_path, 1, {"epoch": 1}, "key")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DiskFullError, match=r"step-000000002\.pt: cannot write \(No space.*: \d+ bytes are needed and \d+"
    ):
        checkpoint.save(tmp_path, 2, {"epoch": 2}, "key")
    assert checkpoint.load_newest(tmp_path, "key") == {"epoch": 1}
