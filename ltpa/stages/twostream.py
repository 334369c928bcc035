"""Train one row of the two-stream network, one network per seed: model.safetensors, history.csv, result.json each."""

import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ltpa.core import layout
from ltpa.core.errors import ModelError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.provenance import code_hash
from ltpa.core.records import Metric, write_record
from ltpa.core.seeds import derive
from ltpa.core.specs import TwoStreamSpec
from ltpa.core.stopping import Stopped, StopRequest
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.twostream import JOINT, RANDOM1, score
from ltpa.models.twostream.files import save_twostream
from ltpa.models.twostream.network import TwoStream, build_twostream
from ltpa.models.twostream.trunks import Trunk
from ltpa.models.twostream.weights import pretrained, start_trunk
from ltpa.stages.common import make_record
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.finedata import boxes_path, fine_splits
from ltpa.training import checkpoint
from ltpa.training.engine import Diverged, Interrupted
from ltpa.training.twostream import FineData, TwoStreamRecipe, TwoStreamRow, TwoStreamTrainer

_MODULE = "ltpa.stages.twostream"
_STAGE = "twostream"


def run(
    spec: TwoStreamSpec,
    results: Path,
    seeds: Sequence[int],
    stop: StopRequest | None = None,
    tolerate_failure: bool = False,
    on_epoch: Callable[[int, TwoStreamRow], None] = lambda seed, row: None,
) -> None:
    """Train the spec's network for each seed and write its artefacts, the record last.

    Args:
        stop: asked after each step; when it says so, state is saved and `Stopped` raised.
        tolerate_failure: write a `failed` record for a diverged run instead of raising.
        on_epoch: told the seed and row of each finished epoch.

    Raises:
        DataError: boxes are missing or do not belong to these images.
        ModelError: the weights to start from are missing or of another trunk.
        Diverged: the loss stopped being finite.
        Stopped: `stop` said so; the same call goes on.
    """
    stop = stop or StopRequest()
    with compute_device(spec.device, spec.threads) as device:
        for seed in seeds:
            _train_one(
                spec,
                results,
                seed,
                device,
                stop,
                tolerate_failure,
                on_epoch,
            )


def _train_one(
    spec: TwoStreamSpec,
    results: Path,
    seed: int,
    device: torch.device,
    stop: StopRequest,
    tolerate_failure: bool,
    on_epoch: Callable[[int, TwoStreamRow], None],
) -> None:
    started = time.perf_counter()
    name = f"{spec.variant} on {spec.dataset}, seed {seed}"
    recipe = TwoStreamRecipe.from_dict(spec.recipe, f"recipe of {name}")
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    train, test = fine_splits(spec, results, dataset, seed)
    boxes = sha256_file(boxes_path(results, spec.dataset, spec.patches, seed)) if spec.patches else ""
    torch.manual_seed(derive(seed, "init"))
    model = build_twostream(spec.architecture, spec.num_classes)
    weights = _start(model, spec.weights)
    key = digest([spec.hash(), seed, dataset.data_hash, boxes, weights, code_hash(_MODULE)])
    state = layout.state_dir(results, _STAGE, key)
    folder = layout.run_dir(results, _STAGE, spec.dataset, spec.variant, seed)
    trainer = TwoStreamTrainer(
        model,
        train,
        lambda network: _error_pct(network, test, seed),
        recipe,
        seed,
        state,
        device,
        stop,
        lambda row: on_epoch(seed, row),
        name,
    )
    reason = ""
    try:
        trainer.run()
    except Interrupted as error:
        raise Stopped(str(error), stop.exit_code) from error
    except Diverged as error:
        if not tolerate_failure:
            raise
        reason = str(error)
    save_twostream(folder / layout.MODEL, model, spec.variant, dataset.classes, {"seed": seed, "spec": spec.hash()})
    write_text(folder / layout.HISTORY, _history_csv(trainer.history))
    record = make_record(
        _MODULE,
        spec,
        seed,
        metrics=[] if reason else _metrics(spec, trainer.history, len(test.labels), len(train.labels)),
        data_hash=dataset.data_hash,
        device=describe_device(device),
        seconds=time.perf_counter() - started,
        reason=reason,
        extra={
            "recipe": dataclasses.asdict(recipe),
            "architecture": model.architecture,
            "weights": weights,
            "patches": {"source": spec.patches, "boxes": spec.boxes, "sha256": boxes},
            "split": spec.split,
            "model_sha256": sha256_file(folder / layout.MODEL),
        },
    )
    write_record(folder / layout.RECORD, record)
    checkpoint.clear(state)


def _start(model: TwoStream, source: str) -> dict[str, dict[str, str]]:
    """Give both trunks their pretrained weights, and say for the record where they come from."""
    facts = {}
    for stream, trunk in (("global", model.global_trunk), ("local", model.local_trunk)):
        if not isinstance(trunk, Trunk):
            continue
        name = model.options.trunk_of(stream)
        tensors, facts[stream] = pretrained(name, source)
        if tensors:
            start_trunk(trunk, name, tensors, source)
    if not facts:
        raise ModelError("two-stream: no trunk to start")
    return facts


def _error_pct(model: TwoStream, data: FineData, seed: int) -> float:
    """Joint error with one random patch per image, the released code's way of testing."""
    scores = score(model, data.images, data.labels, data.boxes, seed)
    hits = scores.correct[RANDOM1, JOINT]
    return 100 * (1 - float((hits[0] if hits.ndim == 2 else hits).mean()))


def _metrics(spec: TwoStreamSpec, history: list[TwoStreamRow], test_images: int, train_images: int) -> list[Metric]:
    last = history[-1]
    best = min(row.test_error_pct for row in history if not math.isnan(row.test_error_pct))
    target = spec.dataset if spec.split == "test" else f"{spec.dataset}/{spec.split}"
    return [
        Metric("test_error_pct", last.test_error_pct, test_images, target),
        Metric("parity_best_test_accuracy_pct", 100 - best, test_images, target, JOINT),
        Metric("chance_error_pct", 100 * (1 - 1 / spec.num_classes), test_images, target),
        Metric("train_error_pct", last.train_error_pct, train_images, spec.dataset),
        Metric("train_loss", last.train_loss, train_images, spec.dataset),
    ]


def _history_csv(history: list[TwoStreamRow]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(TwoStreamRow)])
    for row in history:
        values = dataclasses.astuple(row)
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    return stream.getvalue()
