"""The result record: one small JSON file per stage, dataset, variant and seed, sealed with its own SHA-256."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from ltpa.core import layout
from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.facts import Facts
from ltpa.core.schema import PLAIN, read_json
from ltpa.core.sealed import read_sealed, write_sealed

FORMAT = 1

# Lowest and highest value by the end of a metric's name, which tells its unit; the first end that fits holds. Other
# metrics may take any value.
_RANGES = {
    # No shares of images or pixels: differences of accuracies and of ROAD's two orders, the way to the mask, errors in
    # relation to those of a reference network.
    "drop_pct": (-100.0, 100.0),
    "road_pct": (-100.0, 100.0),
    "_of_oracle_pct": (-math.inf, math.inf),
    "relative_mce_pct": (-math.inf, math.inf),
    "mce_pct": (0.0, math.inf),
    "_pct": (0.0, 100.0),
    "_loss": (0.0, math.inf),
    "_change": (0.0, math.inf),
    "_divergence": (0.0, math.inf),
}
_ROUNDING = 1e-6  # by which a value may lie beyond, when it was summed up in other words than its limit


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: what was measured, unit at the end (`test_error_pct`, `jaccard_pct`).
        value: finite float, possible in that unit.
        n: number of items (images, folds) behind the value, at least 1.
        target: concrete dataset the number was measured on; empty where it is the record's own.
        condition: what else tells it apart (`eps=1`, `raw`, a class or level name); may be empty.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

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

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

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
    status: Literal["ok", "failed"] = "ok"
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
        RecordError: what `read_record` would refuse.
    """
    _check(path, record, "nothing was written")
    write_sealed(path, {"format": FORMAT, **dataclasses.asdict(record)})


def read_record(path: Path) -> Record:
    """Read a record and check its seal, its types, and whether it says what can be.

    Raises:
        RecordError: the file is missing, truncated, edited, or of another format; it holds a key or value that this
            version does not know, or a number that its unit does not allow; it lies in the folder of another run. The
            message names the file and says how to remake it.
    """
    path = Path(path)
    remedy = f"delete it and ask for its table again to remake it ({path})"
    missing = "no such result record; run the stage that makes it"
    record = read_sealed(path, Record, RecordError, version=FORMAT, missing=missing, remedy=remedy)
    _check(path, record, remedy)
    return record


def _check(path: Path, record: Record, remedy: str) -> None:
    """Raise `RecordError` where a record's values contradict each other, their units, or the path."""
    if record.status not in ("ok", "failed") or (record.status == "failed") != bool(record.reason):
        raise RecordError(f"{path}: status {record.status!r} with reason {record.reason!r} makes no sense; {remedy}")
    place, own = layout.run_of(path), (record.stage, record.dataset, record.variant, record.seed)
    if place not in (None, own):
        raise RecordError(
            f"{path}: the record of another run ({layout.run_dir(Path(), *own)}), to be put back there; {remedy}"
        )
    for metric in record.metrics:
        where = f"metric {' '.join(filter(None, (metric.name, metric.target, metric.condition)))}"
        low, high = next(
            (limits for end, limits in _RANGES.items() if metric.name.endswith(end)), (-math.inf, math.inf)
        )
        if not (math.isfinite(metric.value) and low - _ROUNDING <= metric.value <= high + _ROUNDING):
            raise RecordError(f"{path}: {where} is {metric.value}, which its unit does not allow; {remedy}")
        if metric.n < 1:
            raise RecordError(f"{path}: {where} comes from {metric.n} items; {remedy}")
    read_json(Facts, record.extra, f"{path}: key 'extra'", RecordError, f"; {remedy}")


def _range(name: str) -> tuple[float, float]:
    """Lowest and highest value of a metric."""
    return next((limits for end, limits in _RANGES.items() if name.endswith(end)), (-math.inf, math.inf))


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
