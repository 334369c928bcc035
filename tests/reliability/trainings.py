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
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import Split, write_prepared
from ltpa.models import resolve_architecture


def make_data(results: Path) -> None:
    """A dataset of two noisy classes, 96 training and 64 test images of 20 px."""
    random = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", 96), ("test", 64)):
        labels = np.arange(count, dtype=np.int64) % 2
        images = random.integers(0, 200, (count, 20, 20, 3), dtype=np.uint8)
        images[..., 0] += (40 * labels).astype(np.uint8)[:, None, None]
        splits[name] = Split(images=images, labels=labels, ids=np.array([f"{name}/{i}" for i in range(count)]))
    write_prepared(layout.data_dir(results, "noise"), "noise", ["dull", "red"], splits, {})


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


def model_hash(results: Path, spec: TrainSpec, seed: int = 0) -> str:
    """SHA-256 of the trained network's file."""
    return sha256_file(layout.run_dir(results, "train", spec.dataset, spec.variant, seed) / layout.MODEL)


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

    def train(self, spec: TrainSpec, results: Path, *options: str, seed: int = 0) -> Child:
        """Start `ltpa train` in a child; what it prints goes to a file."""
        results.mkdir(parents=True, exist_ok=True)
        output = results.parent / f"{results.name}.output"
        command = ["train", "--spec", spec.to_json(), "--results", str(results), "--seed", str(seed), *options]
        return self.start(command, output)

    def start(self, command: list[str], output: Path) -> Child:
        """Start `ltpa` with a command line."""
        return Child(int(self.ask({"run": command, "output": str(output)})), output, self)


def serve() -> None:
    """Answer requests until there are no more: `run` gives a process id, `wait` an exit code."""
    import ltpa.cli
    import ltpa.stages.train  # noqa: F401
    from ltpa.__main__ import run

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
