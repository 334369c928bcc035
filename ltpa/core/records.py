"""The result record: one small JSON file per stage, dataset, variant and seed, sealed with its own SHA-256."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: what was measured, unit at the end (`test_error_pct`, `jaccard_pct`).
        value: finite float.
        n: number of items (images, folds) behind the value.
        target: concrete dataset the number was measured on; empty where it is the record's own.
        condition: what else tells it apart (`eps=1`, `raw`, a class or level name); may be empty.
    """

    name: str
    value: float
    n: int
    target: str = ""
    condition: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """Everything one job found out, and what it came from. `status` is `ok` or `failed` (then `reason` says why).

    `device` is `cpu` or the GPU's model, `processor` the kind of processor (`ltpa.core.provenance.processor`).
    """

    stage: str
    scale: str
    dataset: str
    variant: str
    seed: int
    metrics: list[Metric]
    config_hash: str
    data_hash: str
    code_hash: str
    code_version: str
    libraries: dict[str, str]
    device: str
    threads: int
    seconds: float
    peak_memory_mb: float
    status: str = "ok"
    reason: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    processor: str = ""

    @property
    def computed_on(self) -> str:
        """The kind of machine: the processor, with the GPU's model before it where one was used."""
        return self.processor if self.device == "cpu" else f"{self.device} ({self.processor})"


def epsilon_of(condition: str) -> float:
    """The step size, on the 0-255 scale, that the condition of an attack's metric names: 8.0 for `eps=8`.

    Raises:
        RecordError: it names none.
    """
    try:
        return float(condition.partition("eps=")[2])
    except ValueError as error:
        raise RecordError(f"condition {condition!r}: names no step size such as eps=8; remake the record") from error


def unconverged(extra: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """What is to be said beside SVM accuracies of a transfer record's `extra` whose fits did not converge.

    By target and condition of the metric; empty where all fits converged, and for records of other stages.
    """
    folds = extra.get("protocol", {}).get("folds")
    return {
        tuple(key.rsplit("/", 1)): f"the SVM of {count} of {folds} folds did not converge"
        for key, count in extra.get("unconverged_fits", {}).items()
        if count
    }


def write_record(path: Path, record: Record) -> None:
    """Write `record` to `path` atomically.

    Raises:
        RecordError: a metric is not finite, or the record is `ok` with a reason or `failed` without one.
    """
    for metric in record.metrics:
        if not math.isfinite(metric.value):
            raise RecordError(f"{path}: metric {metric.name} ({metric.target} {metric.condition}) is {metric.value}")
    if record.status not in ("ok", "failed") or (record.status == "failed") != bool(record.reason):
        raise RecordError(f"{path}: status {record.status!r} with reason {record.reason!r} makes no sense")
    content = {"format": FORMAT, **dataclasses.asdict(record)}
    write_text(path, json.dumps({**content, "sha256": digest(content)}, indent=1, ensure_ascii=False) + "\n")


def read_record(path: Path) -> Record:
    """Read a record and check its seal.

    Raises:
        RecordError: the file is missing, truncated, edited, or of another format; the message says how to remake it.
    """
    remedy = f"delete it and ask for its table again to remake it ({path})"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such result record; run the stage that makes it") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable result record ({error}); {remedy}") from error
    if not isinstance(content, dict) or "sha256" not in content:
        raise RecordError(f"{path}: not a result record; {remedy}")
    seal = content.pop("sha256")
    if digest(content) != seal:
        raise RecordError(f"{path}: its content does not match its SHA-256 (truncated or edited); {remedy}")
    if content.pop("format", None) != FORMAT:
        raise RecordError(f"{path}: written in another format; {remedy}")
    metrics = [Metric(**metric) for metric in content.pop("metrics")]
    return Record(metrics=metrics, **content)


def metric_value(record: Record, name: str, target: str | None = None, condition: str | None = None) -> float:
    """The record's value of a metric; `target` and `condition` select among several.

    Raises:
        LtpaError: the record lacks it.
    """
    for metric in record.metrics:
        if metric.name == name and target in (None, metric.target) and condition in (None, metric.condition):
            return metric.value
    where = f"{record.stage} {record.dataset} {record.variant} seed {record.seed}"
    raise LtpaError(f"the record of {where} has no {name}; delete it and run again to remake it")
