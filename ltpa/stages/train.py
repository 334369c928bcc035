"""Train one variant on one dataset, one network per seed: model.safetensors, history.csv and result.json each."""

import csv
import dataclasses
import io
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ltpa.core import layout
from ltpa.core.errors import MemoryFullError, TrainingError
from ltpa.core.files import atomic_path, remove_drafts, write_text
from ltpa.core.hashing import sha256_file
from ltpa.core.provenance import code_hash, library_versions
from ltpa.core.records import Metric, read_record, write_record
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.core.stopping import Stopped, StopRequest
from ltpa.data.arrays import PreparedDataset
from ltpa.data.normalise import Normaliser
from ltpa.models import build_model, load, save_model, warm_start
from ltpa.models.base import AttentionClassifier
from ltpa.stages.common import make_record, trained_network
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.preprocessing import fitted_normaliser
from ltpa.stages.state import Identity, is_finished
from ltpa.training import checkpoint
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Diverged, EpochRow, Interrupted, Trainer
from ltpa.training.journal import ABOUT, Journal
from ltpa.training.memory import is_out_of_memory
from ltpa.training.progress import Progress
from ltpa.training.recipe import Recipe

_STAGE = "train"
_MODULE = "ltpa.stages.train"
_FINISHED = "finished"
_ARTEFACTS = (layout.MODEL, layout.HISTORY, layout.RECORD)  # in the order they are written


class _CannotStart(TrainingError):
    """The network to start from diverged, and so this one cannot be had either."""


@dataclasses.dataclass(frozen=True)
class Watcher:
    """Who is told how a training goes: of each finished epoch, and about once a second; both with the seed."""

    epoch: Callable[[int, EpochRow], None] = lambda seed, row: None
    progress: Callable[[int, Progress], None] = lambda seed, progress: None
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)


def run(
    spec: TrainSpec,
    results: Path,
    seeds: Sequence[int],
    stop: StopRequest | None = None,
    tolerate_failure: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Train the spec's network for each seed and write its artefacts, the record last.

    A seed whose artefacts are there already, from the same everything, is left as it is. While another process trains
    the same network, this one waits, and then finds it finished.

    Args:
        stop: asked after each step; when it says so, state is saved and `Stopped` raised.
        tolerate_failure: write a `failed` record (and the network as it ended) for a diverged run instead of raising,
            so that tables can name it.
        watcher: is told of epochs, progress, and of what is waited for.

    Raises:
        LtpaError: a GPU is asked for and there is none.
        Diverged: the loss stopped being finite.
        TrainingError: the training of the network to start from failed.
        MemoryFullError, DiskFullError: not enough memory or disk; what was saved is intact.
        ModelError: the network to start from is not the one that the spec names.
        Stopped: `stop` said so; the same call goes on.
    """
    job = _Job(spec, Path(results), stop or StopRequest(), tolerate_failure, watcher or Watcher())
    with compute_device(spec.device, spec.threads, job.waiting("all GPUs are taken")) as device:
        states = [job.train(seed, device) for seed in seeds]
    for state in states:
        with checkpoint.exclusive(state):
            shutil.rmtree(state / _FINISHED, ignore_errors=True)


class _Job:
    """The trainings of one call of `run`."""

    def __init__(
        self, spec: TrainSpec, results: Path, stop: StopRequest, tolerate_failure: bool, watcher: Watcher
    ) -> None:
        self.spec, self.results, self.stop, self.watcher = spec, results, stop, watcher
        self.tolerate_failure = tolerate_failure
        self.dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))

    def waiting(self, reason: str) -> Callable[..., None]:
        """What to call while waiting: says so once, and ends the wait when the job should stop."""
        said: list[str] = []

        def wait(holder: int = 0) -> None:
            self.stop.check(f"{self.spec.variant} on {self.spec.dataset}")
            if not said:
                said.append(reason)
                self.watcher.say(f"waiting: {reason}" + (f" (process {holder})" if holder else ""))

        return wait

    def train(self, seed: int, device: torch.device) -> Path:
        """Train the network of one seed, or find it trained; gives its state folder."""
        spec = self.spec
        name = f"{spec.variant} on {spec.dataset}, seed {seed}"
        start = _start(spec, self.results, seed)
        identity = Identity(
            spec.dataset,
            spec.variant,
            seed,
            spec.hash(),
            self.dataset.data_hash,
            code_hash(_MODULE),
            start,
            library_versions().get("torch", ""),
            library_versions().get("numpy", ""),
            describe_device(device),
        )
        state = layout.state_dir(self.results, _STAGE, identity.key)
        folder = layout.run_dir(self.results, _STAGE, spec.dataset, spec.variant, seed)
        with checkpoint.exclusive(state, self.waiting(f"another process trains {name}")):
            remove_drafts(folder)
            if is_finished(folder, identity, self.tolerate_failure):
                self.watcher.say(f"{name}: trained already ({folder / layout.RECORD})")
            else:
                # Snakemake deletes the outputs of a job that was cut off, those of the seeds that were done included.
                kept = state / _FINISHED
                if not is_finished(kept, identity, self.tolerate_failure):
                    write_text(state / ABOUT, identity.to_json(scale=spec.scale, recipe=spec.recipe))
                    self._train(seed, name, device, identity, state, kept)
                _publish(kept, folder)
            if read_record(folder / layout.RECORD).status == "ok":  # else the last good state is worth a look
                checkpoint.clear(state)
        return state

    def _train(self, seed: int, name: str, device: torch.device, identity: Identity, state: Path, target: Path) -> None:
        spec, dataset = self.spec, self.dataset
        started = time.perf_counter()
        recipe = Recipe.from_dict(spec.recipe, f"recipe of {name}")
        train, test = dataset.split("train"), dataset.split("test")
        self.stop.check(name)
        preprocessing = fitted_normaliser(self.results, dataset, recipe.normalise)
        torch.manual_seed(derive(seed, "init"))
        model = build_model(spec.architecture, spec.num_classes, spec.image_size).to(device)
        training, testing = (
            _prepare(name, split.images, split.labels, preprocessing, device, lambda: self.stop.check(name))
            for split in (train, test)
        )
        images = len(train.labels) // recipe.batch_size * recipe.batch_size
        reason = ""
        with Journal(state, images) as journal:

            def on_epoch(row: EpochRow) -> None:
                journal.epoch(row)
                self.watcher.epoch(seed, row)

            def on_progress(progress: Progress) -> None:
                journal.progress(progress)
                self.watcher.progress(seed, progress)

            trainer = Trainer(
                model,
                training,
                testing,
                recipe,
                seed,
                state,
                self.stop,
                on_epoch,
                name,
                identity.key,
                journal.start,
                on_progress,
            )
            ready = time.perf_counter()
            try:
                if identity.start is not None:
                    _start_from(model, self.results, identity.start, spec.variant, seed)
                trainer.run()
            except Interrupted as error:
                raise Stopped(str(error), self.stop.exit_code) from error
            except (Diverged, _CannotStart) as error:
                if not self.tolerate_failure:
                    raise
                reason = str(error)
            trained = time.perf_counter()
            model.preprocessing = preprocessing
            save_model(
                target / layout.MODEL,
                model.cpu(),
                variant=spec.variant,
                architecture=spec.architecture,
                num_classes=spec.num_classes,
                image_size=spec.image_size,
                classes=dataset.classes,
                extra={"dataset": spec.dataset, "seed": seed, "spec": spec.hash()},
            )
            write_text(target / layout.HISTORY, _history_csv(trainer.history))
            around = ready - started + time.perf_counter() - trained
            record = make_record(
                _MODULE,
                spec,
                seed,
                metrics=[] if reason else _metrics(spec, trainer.history[-1], len(test.labels), len(train.labels)),
                data_hash=dataset.data_hash,
                device=identity.device,
                seconds=around + sum(row.seconds for row in trainer.history),
                reason=reason,
                extra={
                    "recipe": dataclasses.asdict(recipe),
                    "architecture": spec.architecture,
                    "start": identity.start,
                    "model_sha256": sha256_file(target / layout.MODEL),
                },
            )
            write_record(target / layout.RECORD, record)


def _prepare(
    name: str, images: Any, labels: Any, preprocessing: Normaliser, device: torch.device, check: Callable[[], None]
) -> Arrays:
    try:
        return Arrays.prepare(images, labels, preprocessing, device, check)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryFullError(
            f"{name}: {len(images)} images do not fit into the memory of {describe_device(device)} "
            f"({images.size * (1 if preprocessing.pointwise else 4)} bytes); "
            "give the training the device alone (jobs.gpu_share: 1), or a larger device"
        ) from error


def _publish(source: Path, folder: Path) -> None:
    """Copy finished artefacts to where everyone looks for them, the record last."""
    for name in _ARTEFACTS:
        with atomic_path(folder / name, (source / name).stat().st_size) as temporary:
            shutil.copyfile(source / name, temporary)


def _start(spec: TrainSpec, results: Path, seed: int) -> dict[str, str] | None:
    """Which network this one starts from, for the record: `dataset`, `model_sha256`, `failed` (empty, or why)."""
    if spec.start is None:
        return None
    source = trained_network(results, spec.start["dataset"], spec.variant, seed, spec.start["training"])
    return {
        "dataset": spec.start["dataset"],
        "model_sha256": source.extra["model_sha256"],
        "failed": source.reason,
    }


def _start_from(model: AttentionClassifier, results: Path, start: dict[str, str], variant: str, seed: int) -> None:
    path = layout.run_dir(results, _STAGE, start["dataset"], variant, seed) / layout.MODEL
    if start["failed"]:
        raise _CannotStart(f"{path}: cannot start from this network, its training failed: {start['failed']}")
    warm_start(model, load(path, expect_variant=variant, expect_sha256=start["model_sha256"]))


def _metrics(spec: TrainSpec, last: EpochRow, test_images: int, train_images: int) -> list[Metric]:
    chance = 100 * (1 - 1 / spec.num_classes)
    return [
        Metric("test_error_pct", last.test_error_pct, test_images, spec.dataset),
        Metric("chance_error_pct", chance, test_images, spec.dataset),
        Metric("train_error_pct", last.train_error_pct, train_images, spec.dataset),
        Metric("train_loss", last.train_loss, train_images, spec.dataset),
    ]


def _history_csv(history: list[EpochRow]) -> str:
    """The history as CSV text; cells that were not measured are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(EpochRow)])
    for row in history:
        values = dataclasses.astuple(row)
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    return stream.getvalue()
