"""What the stages share that work on trained networks."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.code import code_hash, save_definitions
from ltpa.core.errors import ModelError, NotFiniteError
from ltpa.core.provenance import code_version, library_versions, peak_memory_mb, processor
from ltpa.core.records import Metric, Record, read_record, write_record
from ltpa.core.specs import PatchSpec, ProtocolSpec, TrainSpec


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
def naming(network: Path | str) -> Iterator[None]:
    """Name the network, by its file where it has one, that gives numbers which are not finite."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{network}: {error}") from error


def without_maps(network: Path | str, variant: str) -> ModelError:
    """What to say of a network of a user's own that has none of the maps asked for."""
    return ModelError(f"{network}: a {variant} has no attention map; name a network with attention")


def make_record(
    module: str,
    spec: TrainSpec | PatchSpec | ProtocolSpec,
    seed: int,
    *,
    stage: str = "",
    metrics: list[Metric],
    data_hash: str,
    device: str,
    seconds: float,
    reason: str,
    extra: dict[str, Any],
) -> Record:
    """The record of one finished run of a stage's module, as which the stage is called by default; `reason` says why it
    failed, and is empty otherwise.
    """
    return Record(
        stage=stage or module.rpartition(".")[2],
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
