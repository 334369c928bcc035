"""Many cores, one GPU: `snakemake --cores 8` never trains two networks on it at once, whatever `--resources` says.

The GPU is the one thing made up: in the copy of the checkout the calls that ask CUDA about it answer that there is one,
and what runs on it runs on the processor.
"""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "scale": {"name": "crowded", "networks": {"vgg": {"width": 0.0625, "dropout": 0.0, "bn_weight": "one"}}},
    "seeds": [0, 1, 2],
    "variants": ["vgg"],
    "datasets": ["digits10"],
    "tables": ["table1"],
    "jobs": {"gpus": 1, "track": False},
    "recipes": {"vgg": {"default": "vgg-crowded"}},
}
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--configfile", "crowded.yaml", "--cores", "8"]
MADE_UP = {
    "if not torch.cuda.is_available():": "if False:",
    'yield torch.device("cuda", names.index(gpu))': 'yield from _held(torch.device("cpu"))',
    "return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]": (
        f'return ["{uuid.uuid4()}"]'
    ),
}
HELD = '''

def _held(device):
    """Note when the GPU is taken and given back, and hold it long enough for others to come."""
    import time
    for text in ("taken", "given back"):
        with open(os.environ["HELD_LOG"], "a") as log:
            log.write(f"{os.getpid()} {text}\\n")
        if text == "taken":
            yield device
            time.sleep(0.5)
'''


def test_eight_cores_never_crowd_one_gpu(tmp_path):
    for name in ("Snakefile", "ltpa", "config", "workflow", "profiles", "envs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    device = tmp_path / "ltpa" / "stages" / "device.py"
    text = device.read_text()
    for real, made_up in MADE_UP.items():
        assert text.count(real) == 1, real
        text = text.replace(real, made_up)
    device.write_text(text + HELD)
    (tmp_path / "crowded.yaml").write_text(yaml.safe_dump(CONFIG))
    with open(tmp_path / "config" / "recipes.yaml", "a") as recipes:
        recipes.write("\nvgg-crowded: {epochs: 1, batch_size: 32, lr: 0.02, flip: none}\n")
    log = tmp_path / "held"
    done = subprocess.run(
        [*SNAKEMAKE, "--resources", "gpu=8", "--", "table1"],  # the profile's gpu=1 lets one job start at a time
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "HELD_LOG": str(log), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    events = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    assert [event for _, event in events] == ["taken", "given back"] * 3, events
    assert [pid for pid, _ in events[::2]] == [pid for pid, _ in events[1::2]], "two trainings held the GPU"
    waited = [path for path in tmp_path.glob("results/crowded/logs/train/**/*") if path.is_file()]
    assert sum("waiting" in path.read_text() for path in waited) == 2, [path.read_text() for path in waited]
