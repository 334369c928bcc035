"""What all evaluation stages share: one trained network after the other in, one record each out."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ltpa.core import layout
from ltpa.core.code import code_hash, save_definitions
from ltpa.core.errors import ConfigError, ModelError, NotFiniteError
from ltpa.core.hashing import digest
from ltpa.core.learned import outcomes
from ltpa.core.provenance import code_version, library_versions, peak_memory_mb, processor
from ltpa.core.records import Metric, Record, read_record, write_record
from ltpa.core.specs import EvaluationSpec, TrainSpec, TwoStreamSpec
from ltpa.data.arrays import PreparedDataset

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], stage: str, values: dict[str, Any]) -> Settings:
    """A protocol's settings, a dataclass that checks its own values, from the plain data of a spec.

    Raises:
        ConfigError: a key is missing or unknown, or a value is not allowed.
    """
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{stage}: protocol settings {sorted(values)}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a protocol found for one network: its metrics, small extra facts for the record, and the training records
    of other networks that the metrics come from.
    """

    metrics: list[Metric]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    sources: Sequence[Record] = ()


def trained_network(results: Path, dataset: str, variant: str, seed: int, training: str) -> Record:
    """The record of a trained network that comes from the `TrainSpec` of hash `training`.

    Raises:
        ModelError: it was trained under another configuration.
        RecordError: there is no record, or it is damaged.
    """
    path = layout.run_dir(results, "train", dataset, variant, seed) / layout.RECORD
    record = read_record(path)
    if record.config_hash != training:
        raise ModelError(
            f"{path.parent}: trained under another configuration than asked for; "
            f"delete {path} and run again to retrain it"
        )
    return record


@contextlib.contextmanager
def naming(model_path: Path) -> Iterator[None]:
    """Name the file of the network that gives numbers which are not finite."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{model_path}: {error}") from error


def without_maps(model_path: Path, variant: str) -> ModelError:
    """What to say of a network of a user's own that has none of the maps asked for."""
    return ModelError(f"{model_path}: a {variant} has no attention map; name a network with attention")


def make_record(
    module: str,
    spec: TrainSpec | TwoStreamSpec | EvaluationSpec,
    seed: int,
    *,
    metrics: list[Metric],
    data_hash: str,
    device: str,
    seconds: float,
    reason: str,
    extra: dict[str, Any],
) -> Record:
    """The record of one finished run of the stage `module`; `reason` is empty, or says why the run failed."""
    return Record(
        stage=module.rpartition(".")[2],
        scale=spec.scale,
        dataset=spec.dataset,
        variant=spec.variant,
        seed=seed,
        metrics=metrics,
        config_hash=spec.hash(),
        data_hash=data_hash,
        code_hash=code_hash([module, *spec.code]),
        code_version=code_version(),
        libraries=library_versions(),
        device=device,
        threads=spec.threads,
        seconds=round(seconds, 3),
        peak_memory_mb=round(peak_memory_mb(), 1),
        status="failed" if reason else "ok",
        reason=reason,
        extra=extra,
        processor=processor(),
    )


def save_record(results: Path, record: Record, code: Sequence[str]) -> None:
    """Write a record to its place, and before it what its code consists of, for `ltpa plan --why`.

    Args:
        code: the stage's module, and what its spec names as `code`.
    """
    save_definitions(layout.code_path(results, record.code_hash), code)
    write_record(
        layout.run_dir(results, record.stage, record.dataset, record.variant, record.seed) / layout.RECORD, record
    )


def evaluate_each(
    module: str,
    spec: EvaluationSpec,
    results: Path,
    seeds: Sequence[int],
    measure: "Callable[[AttentionClassifier, list[PreparedDataset], Path], Measurement]",
) -> None:
    """Run `measure(model, targets, folder)` for the network of each seed and write its record into `folder`.

    `module` is the stage's module name (`ltpa.stages.fgsm`); its last part is the stage's name. `targets` are opened in
    the order of `spec.targets`. A network whose training failed gives a `failed` record that names the reason. Every
    record holds the protocol's settings as `extra["protocol"]`, and as `extra["networks"]` what the networks behind it
    err (`ltpa.core.learned.Outcome`).

    Raises:
        ModelError: the model file is missing, or belongs to another variant or training spec.
        NotFiniteError: the network gives numbers that are not finite; the message names its file.
    """
    from ltpa.models import load
    from ltpa.stages.device import compute_device, describe_device

    stage = module.rpartition(".")[2]
    targets = [PreparedDataset.open(layout.data_dir(results, target["name"])) for target in spec.targets]
    with compute_device(spec.device, spec.threads) as device:
        for seed in seeds:
            started = time.perf_counter()
            source = layout.run_dir(results, "train", spec.dataset, spec.variant, seed)
            folder = layout.run_dir(results, stage, spec.dataset, spec.variant, seed)
            trained = trained_network(results, spec.dataset, spec.variant, seed, spec.training)
            reason, found = "", Measurement([])
            networks: list[dict[str, Any]] = []
            if trained.status == "ok":
                path, expected = source / layout.MODEL, trained.extra.get("model_sha256")
                model = load(path, expect_variant=spec.variant, expect_sha256=expected).to(device)
                with naming(path):
                    found = measure(model, targets, folder)
                behind = [outcome for source in (trained, *found.sources) for outcome in outcomes(source)]
                networks = [dataclasses.asdict(outcome) for outcome in behind]
            else:
                reason = f"training failed: {trained.reason}"
            record = make_record(
                module,
                spec,
                seed,
                metrics=found.metrics,
                data_hash=digest([target.data_hash for target in targets]),
                device=describe_device(device),
                seconds=time.perf_counter() - started,
                reason=reason,
                extra={"protocol": spec.protocol, "networks": networks, **found.extra},
            )
            save_record(results, record, [module, *spec.code])
