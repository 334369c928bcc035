"""Train one variant on one dataset, one network per seed: model.safetensors, history.csv and result.json each."""

import csv
import dataclasses
import io
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ltpa.core import layout
from ltpa.core.errors import LtpaError, TrainingError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import code_hash
from ltpa.core.records import Metric, write_record
from ltpa.core.seeds import derive
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.models import build_model, load, save_model, warm_start
from ltpa.models.base import AttentionClassifier
from ltpa.stages.common import make_record, trained_network
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.preprocessing import fitted_normaliser
from ltpa.training import checkpoint
from ltpa.training.engine import Arrays, EpochRow, Interrupted, Trainer
from ltpa.training.recipe import Recipe

_STAGE = "train"
_MODULE = "ltpa.stages.train"


class Stopped(LtpaError):
    """Training was asked to stop and can be resumed; the exit code tells a scheduler to requeue (EX_TEMPFAIL)."""

    exit_code = 75


def run(
    spec: TrainSpec,
    results: Path,
    seeds: Sequence[int],
    max_seconds: float = math.inf,
    tolerate_failure: bool = False,
    on_epoch: Callable[[int, EpochRow], None] = lambda seed, row: None,
) -> None:
    """Train the spec's network for each seed and write its artefacts, the record last.

    Args:
        max_seconds: stop with resumable state after this long.
        tolerate_failure: write a `failed` record (and the network as it ended) for a diverged run instead of raising,
            so that tables can name it.
        on_epoch: told the seed and row of each finished epoch.

    Raises:
        LtpaError: a GPU is asked for and there is none.
        TrainingError: the loss stopped being finite, another process trains the same network, or the training of the
            network to start from failed.
        ModelError: the network to start from is not the one that the spec names.
        Stopped: SIGTERM, SIGUSR1 or `max_seconds`; state is saved.
    """
    deadline = time.monotonic() + max_seconds
    requested: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: requested.append(received))
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    with compute_device(spec.device, spec.threads) as device:
        for seed in seeds:
            _train_one(
                spec,
                results,
                dataset,
                seed,
                device,
                should_stop=lambda: bool(requested) or time.monotonic() > deadline,
                tolerate_failure=tolerate_failure,
                on_epoch=on_epoch,
            )


def _train_one(
    spec: TrainSpec,
    results: Path,
    dataset: PreparedDataset,
    seed: int,
    device: torch.device,
    should_stop: Callable[[], bool],
    tolerate_failure: bool,
    on_epoch: Callable[[int, EpochRow], None],
) -> None:
    started = time.perf_counter()
    name = f"{spec.variant} on {spec.dataset}, seed {seed}"
    recipe = Recipe.from_dict(spec.recipe, f"recipe of {name}")
    start = _start(spec, results, seed)
    key = digest([spec.hash(), seed, dataset.data_hash, code_hash(_MODULE), start])
    state = layout.state_dir(results, _STAGE, key)
    folder = layout.run_dir(results, _STAGE, spec.dataset, spec.variant, seed)

    train, test = dataset.split("train"), dataset.split("test")
    preprocessing = fitted_normaliser(results, dataset, recipe.normalise).to(device)
    torch.manual_seed(derive(seed, "init"))
    model = build_model(spec.architecture, spec.num_classes, spec.image_size).to(device)
    trainer = Trainer(
        model,
        Arrays.prepare(train.images, train.labels, preprocessing, device),
        Arrays.prepare(test.images, test.labels, preprocessing, device),
        recipe,
        seed,
        state,
        should_stop,
        lambda row: on_epoch(seed, row),
        name,
    )
    reason = ""
    resolved = dataclasses.asdict(recipe)
    extra: dict[str, Any] = {"recipe": resolved, "architecture": spec.architecture, "start": start}
    try:
        if start is not None:
            _start_from(model, results, start, spec.variant, seed)
        trainer.run()
    except Interrupted as error:
        raise Stopped(str(error)) from error
    except TrainingError as error:
        if not tolerate_failure:
            raise
        reason = str(error)
    model.preprocessing = preprocessing
    save_model(
        folder / layout.MODEL,
        model.cpu(),
        variant=spec.variant,
        architecture=spec.architecture,
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        classes=dataset.classes,
        extra={"dataset": spec.dataset, "seed": seed, "spec": spec.hash()},
    )
    extra["model_sha256"] = sha256_file(folder / layout.MODEL)
    write_text(folder / layout.HISTORY, _history_csv(trainer.history))
    record = make_record(
        _MODULE,
        spec,
        seed,
        metrics=[] if reason else _metrics(spec, trainer.history[-1], len(test.labels), len(train.labels)),
        data_hash=dataset.data_hash,
        device=describe_device(device),
        seconds=time.perf_counter() - started,
        reason=reason,
        extra=extra,
    )
    write_record(folder / layout.RECORD, record)
    checkpoint.clear(state)


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
        raise TrainingError(f"{path}: cannot start from this network, its training failed: {start['failed']}")
    warm_start(model, load(path, expect_variant=variant))


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
