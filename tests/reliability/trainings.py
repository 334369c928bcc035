"""Real training processes, cheap to start: a server imports torch once and forks a child per training.

Run as a script this file is the server; imported it is its client, and makes the small dataset and spec to train.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np

from ltpa.core import layout
from ltpa.core.hashing import sha256_file
from ltpa.core.specs import Spec, TrainSpec
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.boxes import Boxes, write_boxes
from ltpa.models import resolve_architecture
from ltpa.models.registry import parse_options


def make_data(results: Path) -> None:
    """A dataset of two noisy classes, 96 training and 64 test images of 20 px."""
    random = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", 96), ("test", 64)):
        labels = np.arange(count, dtype=np.int64) % 2
        images = random.integers(0, 200, (count, 20, 20, 3), dtype=np.uint8)
        images[..., 0] += (40 * labels).astype(np.uint8)[:, None, None]
        splits[name] = Split(images=images, labels=labels, ids=np.array([f"{name}/{i}" for i in range(count)]))
    folder = layout.data_dir(results, "noise")
    write_prepared(folder, "noise", ["dull", "red"], splits, {})
    found = {}
    for name, split in splits.items():
        count = len(split.labels)
        boxes = np.tile(np.array([[2, 2, 12, 12], [0, 4, 10, 14]]), (count, 1, 1))
        found[name] = Boxes(boxes, *(np.zeros(boxes.shape[:2], kind) for kind in (np.float32, np.int32, np.int16)))
    write_boxes(layout.boxes_path(results, "noise", "fixed", 0), PreparedDataset.open(folder), found, {})
    first, second = (layout.boxes_path(results, "noise", "fixed", seed).parent for seed in (0, 1))
    shutil.copytree(first, second)


def copy_data(data: Path, results: Path) -> Path:
    """A new results folder with the dataset."""
    shutil.copytree(data, results)
    return results


def small_spec(**recipe: object) -> TrainSpec:
    """A narrow VGG with attention that saves its state all the time."""
    settings = {"epochs": 4, "batch_size": 16, "lr": 0.02, "checkpoint_seconds": 0.1, "checkpoint_epochs": 1}
    return TrainSpec(
        scale="small",
        dataset="noise",
        threads=1,
        variant="vgg-att2-concat-pc",
        architecture=resolve_architecture("vgg-att2-concat-pc", width=1 / 16),
        num_classes=2,
        image_size=20,
        recipe={**settings, **recipe},
    )


def small_two_stream(**recipe: object) -> TrainSpec:
    """A narrow two-stream network that saves its state all the time."""
    settings = {"learning": "two-stream", "epochs": 4, "batch_size": 16, "lr": 0.02, "lr_local": 0.05}
    seen = {"augment": "flip_crop", "weights": "scratch", "patches": "fixed", "boxes": 2}
    saving = {"evaluation_batch": 16, "checkpoint_seconds": 0.1, "checkpoint_epochs": 1}
    network = {"trunk": "vgg6_bn", "width": 0.125, "image_size": 16, "patch_size": 16, "steps": 3, "hidden": 8}
    return TrainSpec(
        scale="small",
        dataset="noise",
        threads=1,
        variant="two-stream",
        architecture=parse_options({"family": "two-stream", **network}).plain(),
        num_classes=2,
        image_size=16,
        recipe={**settings, **seen, **saving, **recipe},
    )


def learning_of(spec: TrainSpec) -> str:
    """The kind of training."""
    return str(spec.recipe.get("learning", "cross-entropy"))


def command(spec: Spec, results: Path, *seeds: int) -> list[str]:
    """What `ltpa` is told to train it for some seeds."""
    return ["train", "--spec", spec.to_json(), "--results", str(results), "--seeds", *map(str, seeds or (0,))]


def run_folder(results: Path, spec: Spec, seed: int = 0) -> Path:
    """Where its artefacts lie."""
    return layout.run_dir(results, "train", spec.dataset, spec.variant, seed)


def model_hash(results: Path, spec: Spec, seed: int = 0) -> str:
    """SHA-256 of the trained network's file."""
    return sha256_file(run_folder(results, spec, seed) / layout.MODEL)


@dataclasses.dataclass
class Child:
    """A training process, child of the server."""

    pid: int
    output: Path
    _server: "Server"

    def wait(self) -> int:
        """Its exit code once it has ended; negative for the signal that killed it."""
        return int(self._server.ask({"wait": self.pid}))


class Server:
    """Starts trainings. A context manager; leaving it kills what still runs."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        assert self._answers.readline() == "ready\n"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self._requests.close()
        self._process.wait(timeout=60)

    def ask(self, request: dict) -> str:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        return self._answers.readline()

    def train(self, spec: Spec, results: Path, *options: str) -> Child:
        """Start the training of seed 0 in a child; what it prints goes to a file."""
        results.mkdir(parents=True, exist_ok=True)
        return self.start([*command(spec, results), *options], results.parent / f"{results.name}.output")

    def start(self, words: list[str], output: Path) -> Child:
        """Start `ltpa` with a command line."""
        return Child(int(self.ask({"run": words, "output": str(output)})), output, self)


def serve() -> None:
    """Answer requests until there are no more: `run` gives a process id, `wait` an exit code."""
    from ltpa.__main__ import run
    from ltpa.stages import cross_entropy, two_stream  # noqa: F401 (with torch, which would take a second per child)

    print("ready", flush=True)
    children = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            children.discard(request["wait"])
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for stream in (1, 2):
                os.dup2(output, stream)
            try:
                code = run(request["run"])
            except SystemExit as stopped:
                code = int(stopped.code or 0)
            sys.stdout.flush()
            os._exit(code)
        children.add(pid)
        print(pid, flush=True)
    for pid in children:
        os.kill(pid, 9)


if __name__ == "__main__":
    serve()
