"""The tables of MLflow's database that runs lie in: what MLflow's client would read and write there, many at a time.

The columns are those that MLflow has had since its first versions; `ltpa.tracking.store.check_database` refuses a
database of another version than the installed one. tests/unit/test_tracking.py compares the rows with those that
MLflow's client writes.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from ltpa.core.files import write_errors
from ltpa.tracking.naming import TAG_KEY

_NAME = "mlflow.runName"
_LARGEST = sys.float_info.max  # what MLflow puts in the place of infinity


@dataclasses.dataclass(frozen=True)
class Point:
    """One value of a metric at one step."""

    name: str
    value: float
    step: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """A run of the store: its id, its tags, and the last value of each of its metrics by their name in MLflow."""

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow notes times."""
    return int(time.time() * 1000)


def read_runs(connection: sqlite3.Connection, experiments: Sequence[str]) -> Iterator[Kept]:
    """The active runs of the experiments of these names that have a key (`TAG_KEY`), oldest first."""
    marks = ",".join("?" * len(experiments))
    chosen = (
        "FROM runs JOIN experiments USING (experiment_id) "
        f"WHERE runs.lifecycle_stage = 'active' AND experiments.name IN ({marks})"
    )
    tags: dict[str, dict[str, str]] = {}
    for (run_id,) in connection.execute(f"SELECT run_uuid {chosen} ORDER BY start_time, run_uuid", experiments):
        tags[run_id] = {}
    metrics: dict[str, dict[str, float]] = {run_id: {} for run_id in tags}
    inside = f"WHERE run_uuid IN (SELECT run_uuid {chosen})"
    for run_id, key, value in connection.execute(f"SELECT run_uuid, key, value FROM tags {inside}", experiments):
        tags[run_id][key] = value
    found = connection.execute(f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {inside}", experiments)
    for run_id, key, value, is_nan in found:
        metrics[run_id][key] = math.nan if is_nan else value
    for run_id, own in tags.items():
        if TAG_KEY in own:
            yield Kept(run_id, own, metrics[run_id])


def experiment_id(connection: sqlite3.Connection, name: str, folder: Path) -> int:
    """The id of experiment `name`, whose artefacts lie in `folder`; it is created, or restored where it was deleted."""
    found = connection.execute(
        "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", [name]
    ).fetchone()
    if found is None:
        row = (name, folder.as_uri(), "active", now_ms(), now_ms())
        columns = "name, artifact_location, lifecycle_stage, creation_time, last_update_time"
        made = connection.execute(f"INSERT INTO experiments ({columns}) VALUES (?, ?, ?, ?, ?)", row)
        return int(made.lastrowid or 0)
    if found[1] != "active":
        restored = "UPDATE experiments SET lifecycle_stage = 'active', last_update_time = ? WHERE experiment_id = ?"
        connection.execute(restored, (now_ms(), found[0]))
    return int(found[0])


def create_run(
    connection: sqlite3.Connection, experiment: int, name: str, started_ms: int, tags: Mapping[str, str]
) -> str:
    """A new run, which is marked as running; gives its id."""
    run_id = uuid.uuid4().hex
    (folder,) = connection.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id = ?", [experiment]
    ).fetchone()
    connection.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
        "source_version, lifecycle_stage, artifact_uri, experiment_id) "
        "VALUES (?, ?, 'UNKNOWN', '', '', 'unknown', 'RUNNING', ?, '', 'active', ?, ?)",
        (run_id, name, started_ms, f"{folder}/{run_id}/artifacts", experiment),
    )
    set_tags(connection, run_id, {**tags, _NAME: name})
    return run_id


def set_tags(connection: sqlite3.Connection, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; those it has of these names are replaced."""
    rows = [(name, value, run_id) for name, value in tags.items()]
    connection.executemany("INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", rows)


def set_params(connection: sqlite3.Connection, run_id: str, params: Mapping[str, str]) -> None:
    """Set parameters of a new run."""
    rows = [(name, value, run_id) for name, value in params.items()]
    connection.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", rows)


def add_points(connection: sqlite3.Connection, run_id: str, points: Sequence[Point], at_ms: int) -> None:
    """Add values of metrics, at steps after those that are there; the last one is what MLflow shows of a metric."""
    rows = []
    for point in sorted(points, key=lambda point: point.step):
        value = 0.0 if math.isnan(point.value) else max(-_LARGEST, min(_LARGEST, float(point.value)))
        rows.append((point.name, value, at_ms, run_id, point.step, math.isnan(point.value)))
    values = "(key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
    connection.executemany(f"INSERT INTO metrics {values}", rows)
    connection.executemany(f"INSERT OR REPLACE INTO latest_metrics {values}", rows)


def end_run(connection: sqlite3.Connection, run_id: str, status: str, ended_ms: int) -> None:
    """Mark a run as ended: FINISHED, FAILED or KILLED."""
    connection.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, ended_ms, run_id))


def delete_run(connection: sqlite3.Connection, run_id: str) -> None:
    """Mark a run as deleted; MLflow shows it among the deleted ones."""
    deleted = "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE run_uuid = ?"
    connection.execute(deleted, (now_ms(), run_id))


def artefact_folder(connection: sqlite3.Connection, run_id: str) -> Path:
    """Where a run's artefacts lie."""
    (uri,) = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", [run_id]).fetchone()
    return Path(unquote(urlparse(uri).path))


def keep_artefact(folder: Path, path: Path) -> None:
    """Have the file `path` among the artefacts in `folder`: by a second name where the disk can, else by a copy.

    Results are never changed in place, so that what is there stays what it was. One of the same name is replaced.

    Raises:
        DiskFullError, LtpaError: the folder cannot be written.
    """
    target = folder / path.name
    with write_errors(target):
        if target.exists() and target.samefile(path):
            return
        folder.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(path, target)
            return
        shutil.copyfile(path, target)
