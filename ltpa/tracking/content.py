"""What a result record looks like as an MLflow run: tags, parameters, metrics and artefacts."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.errors import RecordError
from ltpa.core.hashing import digest
from ltpa.core.records import Record, read_record, unconverged
from ltpa.tracking.naming import TAG_KEY, clean, metric_key, run_key
from ltpa.tracking.rows import Point

_SMALL_MODEL = 5_000_000  # bytes; larger networks stay beside their record only
_TAG_LENGTH = 5000
_PARAM_LENGTH = 6000


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything one run holds; `ended_ms` is when the record was written."""

    key: str
    name: str
    status: str
    started_ms: int
    ended_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    artefacts: list[Path]


@dataclasses.dataclass(frozen=True)
class Source:
    """A record, its file, and the seal inside the file."""

    record: Record
    path: Path
    seal: str


def read_source(path: Path) -> Source:
    """Read a record and its seal.

    Raises:
        RecordError: the record is missing, unreadable or edited.
    """
    record = read_record(path)
    return Source(record, Path(path), json.loads(Path(path).read_text(encoding="utf-8"))["sha256"])


def run_content(source: Source, relative: str, models: bool) -> Content:
    """The run of one record. `relative` is the record's path below the results folder; `models` keeps large networks.

    Raises:
        RecordError: two metrics, or two columns of the history, would get the same name in MLflow.
    """
    record = source.record
    folder = source.path.parent
    ended = int(source.path.stat().st_mtime * 1000)
    points = [
        Point(metric_key(metric.name, metric.target or record.dataset, metric.condition), metric.value, 0)
        for metric in record.metrics
    ]
    points += [Point("job/seconds", record.seconds, 0), Point("job/peak_memory_mb", record.peak_memory_mb, 0)]
    points += _history(folder / layout.HISTORY)
    _refuse_doubles(points, source.path)
    return Content(
        key=run_key(record.stage, record.dataset, record.variant, record.seed),
        name=f"{record.variant} {record.dataset} seed {record.seed}",
        status="FINISHED" if record.status == "ok" else "FAILED",
        started_ms=ended - int(record.seconds * 1000),
        ended_ms=ended,
        tags={**_tags(record), "ltpa.record": relative},
        params=_params(record),
        points=points,
        artefacts=list(_artefacts(folder, models)),
    )


def parent_seal(sources: Sequence[Source]) -> str:
    """What changes when one of the seeds' records does."""
    return digest([source.seal for source in sources])


def parent_content(sources: Sequence[Source]) -> Content:
    """The parent run of one network's seeds: mean, standard deviation (ddof 1) and count of every metric."""
    first = sources[0].record
    values: dict[str, list[float]] = {}
    for source in sources:
        for metric in source.record.metrics:
            key = metric_key(metric.name, metric.target or first.dataset, metric.condition)
            values.setdefault(key, []).append(metric.value)
    ended = max(int(source.path.stat().st_mtime * 1000) for source in sources)
    key = run_key(first.stage, first.dataset, first.variant)
    failed = sum(source.record.status != "ok" for source in sources)
    return Content(
        key=key,
        name=f"{first.variant} {first.dataset}",
        status="FAILED" if failed == len(sources) else "FINISHED",
        started_ms=ended,
        ended_ms=ended,
        tags={TAG_KEY: key, "ltpa.seeds": ",".join(str(source.record.seed) for source in sources)},
        params={
            "scale": first.scale,
            "dataset": first.dataset,
            "variant": first.variant,
            "seeds": str(len(sources)),
            "failed": str(failed),
        },
        points=[point for key, found in values.items() for point in _summary(key, found)],
        artefacts=[],
    )


def _summary(key: str, values: Sequence[float]) -> Iterator[Point]:
    mean = math.fsum(values) / len(values)
    yield Point(f"{key}/mean", mean, 0)
    yield Point(f"{key}/n", float(len(values)), 0)
    if len(values) > 1:
        yield Point(f"{key}/sd", math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), 0)


def _tags(record: Record) -> dict[str, str]:
    tags = {
        TAG_KEY: run_key(record.stage, record.dataset, record.variant, record.seed),
        **{f"ltpa.{name}": getattr(record, name) for name in ("config_hash", "data_hash", "code_hash", "code_version")},
        **{f"ltpa.library.{clean(name)}": version for name, version in record.libraries.items()},
        "ltpa.status": record.status,
    }
    if record.reason:
        tags["ltpa.reason"] = record.reason
    if doubts := unconverged(record.extra):
        tags["ltpa.unconverged"] = "; ".join(f"{' '.join(key)}: {doubt}" for key, doubt in doubts.items())
    return {name: value[:_TAG_LENGTH] for name, value in tags.items()}


def _params(record: Record) -> dict[str, str]:
    fields = ("scale", "stage", "dataset", "variant", "seed", "device", "processor", "threads")
    params = {name: str(getattr(record, name)) for name in fields}
    params.update(_flatten("extra", record.extra))
    return {clean(name): value[:_PARAM_LENGTH] for name, value in params.items()}


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flatten(f"{prefix}.{name}", inner)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _history(path: Path) -> list[Point]:
    """Every numeric cell of a history file; its `epoch` column gives the step."""
    if not path.exists():
        return []
    points = []
    with open(path, encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), start=1):
            try:
                step = int(row.pop("epoch", number))
                cells = {name: float(text) for name, text in row.items() if text}
            except (TypeError, ValueError) as error:
                raise RecordError(f"{path}: row {number} is not numeric ({error}); retrain the network") from error
            points += [Point(f"epoch/{clean(name)}", value, step) for name, value in cells.items()]
    return points


def _refuse_doubles(points: Sequence[Point], path: Path) -> None:
    seen = set()
    for point in points:
        if (point.name, point.step) in seen:
            raise RecordError(f"{path}: two metrics would both be {point.name} in MLflow; remake the record")
        seen.add((point.name, point.step))


def _artefacts(folder: Path, models: bool) -> Iterator[Path]:
    """Record, history and network."""
    yield folder / layout.RECORD
    if (folder / layout.HISTORY).exists():
        yield folder / layout.HISTORY
    model = folder / layout.MODEL
    if model.exists() and (models or model.stat().st_size < _SMALL_MODEL):
        yield model
