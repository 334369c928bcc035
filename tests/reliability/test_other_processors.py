"""States that were saved on another kind of processor: named, kept apart, never mixed in."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainings import copy_data, make_data, run_folder, small_spec

from ltpa.core import layout
from ltpa.core.hashing import sha256_file
from ltpa.core.provenance import processor
from ltpa.core.records import read_record
from ltpa.runtime import checkpoint
from ltpa.stages import train
from ltpa.stages.state import Identity, clear_states, is_finished, saved_states
from ltpa.training.journal import read_about

SPEC = small_spec(epochs=2)

# Trains the spec until the first state is saved, or to the end, with whatever the environment says.
ELSEWHERE = """
import sys
from pathlib import Path
from trainings import small_spec
from ltpa.core.provenance import processor
from ltpa.runtime.stopping import Stopped
from ltpa.stages import train

class AfterTwoSteps:
    received, reason, exit_code, asked = 15, "test", 75, 0
    def __call__(self):
        self.asked += 1
        return self.asked > 3
    def check(self, doing):
        pass

print(processor())
try:
    train.run(small_spec(epochs=2), Path(sys.argv[1]), [0], AfterTwoSteps())
except Stopped:
    print("stopped")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    make_data(folder := tmp_path_factory.mktemp("data") / "results")
    return folder


def network_of(results):
    return sha256_file(run_folder(results, SPEC) / layout.MODEL)


def test_a_state_of_another_capability_is_named_and_kept_and_not_mixed_in(data, tmp_path, caplog):
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no other capability")
    here, mixed = copy_data(data, tmp_path / "here"), copy_data(data, tmp_path / "mixed")
    places = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": places}
    command = [sys.executable, "-c", ELSEWHERE, str(mixed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    there, ended = done.stdout.splitlines()
    assert "DEFAULT" in there and there.endswith("ATEN_CPU_CAPABILITY=default") and ended == "stopped"
    (state,) = (mixed / "state" / "train").iterdir()
    assert len(list(state.glob("*/step-*.pt"))) == 1
    train.run(SPEC, here, [0])
    assert "another kind of processor" not in caplog.text
    train.run(SPEC, mixed, [0])
    (line,) = [each.getMessage() for each in caplog.records if "another kind of processor" in each.getMessage()]
    assert there in line and processor() in line and str(state) in line and "\n" not in line
    assert network_of(mixed) == network_of(here), "nothing of the other processor is in it"
    record = read_record(run_folder(mixed, SPEC) / layout.RECORD)
    assert record.processor == record.computed_on == processor() and not list(state.glob("processor-*"))
    folder, elsewhere = run_folder(mixed, SPEC), dataclasses.replace(Identity.of(record), processor=there)
    assert is_finished(folder, elsewhere, failed_too=False), "what is finished here is finished there"


def identity(kind):
    return Identity("noise", "vgg", 3, "spec", "data", "code", None, {"torch": "2"}, "cpu", kind)


def test_each_kind_of_processor_goes_on_with_its_own_states(tmp_path, caplog):
    one, other = identity("one"), identity("other")
    assert one.key == other.key, "one lock for both"
    first = saved_states(tmp_path, one)
    checkpoint.save(first, 1, {"epoch": 1}, one.key)
    assert saved_states(tmp_path, one) == first and not caplog.records
    second = saved_states(tmp_path, other)
    assert second != first and checkpoint.load_newest(second, other.key) is None
    assert "vgg on noise, seed 3: saved on another kind of processor (one) than this one (other)" in caplog.text
    checkpoint.save(second, 1, {"epoch": 9}, other.key)
    caplog.clear()
    assert saved_states(tmp_path, one) == first and checkpoint.load_newest(first, one.key) == {"epoch": 1}
    assert not caplog.records and read_about(first)["processor"] == "one"
    clear_states(tmp_path)
    assert not list(tmp_path.iterdir())
