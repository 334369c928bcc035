"""Hold every number of the tables against the MLflow store."""

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError
from ltpa.tracking.compare import kept_runs
from ltpa.tracking.naming import metric_key, run_key
from ltpa.tracking.store import DATABASE

_TIDY = ".tidy.csv"
_SHOWN = 5
_ROUNDING = 1e-12  # relative; a mean may differ in its last bit
_FROM_DATA = "prepare"  # counts of datasets come from manifests, not from runs

_ADDRESS = ("stage", "dataset", "variant", "target", "condition", "metric")

Runs = Mapping[str, Mapping[str, float]]


def verify(results: Path, scale: str, tables: Sequence[Path]) -> int:
    """Compare every number of the given tidy tables, and every mean, spread and count of the tables beside them.

    Each is computed anew from the runs that MLflow holds. Gives how many numbers were compared.

    Raises:
        LtpaError: a table is missing or not one, or numbers differ; the message shows the first differences.
    """
    contents = [(path, _read(path), _read(_sibling(path))) for path in tables]
    stages = {row["stage"] for _, tidy, _ in contents for row in tidy} - {_FROM_DATA}
    runs = {key: run.metrics for key, run in kept_runs(results, scale, sorted(stages)).items()}
    compared = 0
    differences: list[str] = []
    for path, tidy, cells in contents:
        for found in (*_check_tidy(tidy, runs), *_check_cells(tidy, cells, runs)):
            compared += 1
            if found:
                differences.append(f"{path.name.removesuffix(_TIDY)}: {found}")
    if differences:
        shown = "; ".join(differences[:_SHOWN])
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        database = Path(results) / DATABASE
        raise LtpaError(
            f"{database}: {len(differences)} numbers differ from the tables: {shown}{more}; remake the tables"
        )
    return compared


def _check_tidy(tidy: Sequence[dict[str, str]], runs: Runs) -> Iterator[str]:
    """For each number of one seed: a difference in words, or nothing."""
    for row in tidy:
        if row["value"] and row["stage"] != _FROM_DATA:
            key = run_key(row["stage"], row["dataset"], row["variant"], row["seed"])
            yield _compare(f"{key} {_metric(row)}", float(row["value"]), runs.get(key, {}).get(_metric(row)))


def _check_cells(tidy: Sequence[dict[str, str]], cells: Sequence[dict[str, str]], runs: Runs) -> Iterator[str]:
    """For each mean, standard deviation and count of a cell: a difference in words, or nothing."""
    seeds: dict[tuple[str, ...], set[str]] = {}
    for row in tidy:
        seeds.setdefault(_cell(row), set()).add(row["seed"])
    for cell in cells:
        if not cell["mean"] or cell["stage"] == _FROM_DATA:
            continue
        network = (cell["stage"], cell["dataset"], cell["variant"])
        keys = [run_key(*network, seed=seed) for seed in sorted(seeds.get(_cell(cell), ()))]
        held = [runs.get(key, {}).get(_metric(cell)) for key in keys]
        values = [value for value in held if value is not None]
        where = f"{run_key(*network)} {_metric(cell)}"
        yield _compare(f"mean of {where}", float(cell["mean"]), statistics.fmean(values) if values else None)
        yield _compare(f"count of {where}", float(cell["n"]), float(len(values)))
        if cell["sd"]:
            spread = statistics.stdev(values) if len(values) > 1 else None
            yield _compare(f"standard deviation of {where}", float(cell["sd"]), spread)


def _cell(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in _ADDRESS)


def _metric(row: dict[str, str]) -> str:
    return metric_key(row["metric"], row["target"], row["condition"])


def _compare(where: str, shown: float, held: float | None) -> str:
    if held is None:
        return f"{where}: {shown!r} in the table, nothing in MLflow"
    same = math.isclose(shown, held, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return "" if same else f"{where}: {shown!r} in the table, {held!r} in MLflow"


def _sibling(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_TIDY) + ".csv")


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except OSError as error:
        raise LtpaError(f"{path}: cannot be read ({error.strerror}); make the table first") from error
    if not set(_ADDRESS).issubset(reader.fieldnames or ()):
        raise LtpaError(f"{path}: not a table of this program; make the table again")
    return rows
