"""Running trainings in the MLflow store: their epochs as they end, read from the files they write, never from them.

A followed training is a run without the seal that a whole run has, so `ltpa.tracking.writer` replaces it by the run of
the finished record.
"""

import sqlite3
from pathlib import Path
from typing import Any

from ltpa.runtime.lock import in_use
from ltpa.tracking import rows
from ltpa.tracking.naming import ARTEFACTS, TAG_KEY, clean, experiment_name, run_key
from ltpa.training.journal import read_about, read_metrics

TAG_STATE = "ltpa.state"
_TAG_EPOCHS = "ltpa.epochs"
_STAGE = "train"  # whose trainings are runs of the store


class Follower:
    """Copies what trainings of one scale report into its store. Only those that run, and those it saw running."""

    def __init__(self, results: Path, scale: str) -> None:
        self.results, self.scale = Path(results), scale
        self._seen: set[Path] = set()

    def running(self) -> list[Path]:
        """State folders in which a process trains at this moment."""
        return [folder for folder in sorted((self.results / "state" / _STAGE).glob("*")) if in_use(folder)]

    def look(self, connection: sqlite3.Connection) -> int:
        """Write what is new, and give how many epochs that were. Call it under the store's lock."""
        running = set(self.running())
        new = 0
        for folder in sorted(running | self._seen):
            about = read_about(folder)
            if about is not None:
                new += self._update(connection, folder, about, folder in running)
        self._seen = running
        return new

    def _update(self, connection: sqlite3.Connection, folder: Path, about: dict[str, Any], running: bool) -> int:
        stage, key, epochs = folder.parent.name, folder.name, read_metrics(folder)
        name = experiment_name(self.scale, stage)
        found = [run for run in rows.read_runs(connection, [name]) if run.tags.get(TAG_STATE) == key]
        if found:
            run_id, known = found[-1].run_id, int(found[-1].tags[_TAG_EPOCHS])
        else:
            tags = {TAG_KEY: run_key(stage, about["dataset"], about["variant"], about["seed"]), TAG_STATE: key}
            experiment = rows.experiment_id(connection, name, self.results.resolve() / ARTEFACTS / stage)
            title = f"{about['variant']} {about['dataset']} seed {about['seed']} (running)"
            run_id, known = rows.create_run(connection, experiment, title, rows.now_ms(), tags), 0
        new = [row for row in epochs if row["epoch"] > known]
        points = [
            rows.Point(f"epoch/{clean(name)}", float(value), row["epoch"])
            for row in new
            for name, value in row.items()
            if name != "epoch" and value is not None
        ]
        rows.add_points(connection, run_id, points, rows.now_ms())
        rows.set_tags(connection, run_id, {_TAG_EPOCHS: str(new[-1]["epoch"] if new else known)})
        if not running:
            whole = bool(epochs) and epochs[-1]["epoch"] == about.get("recipe", {}).get("epochs")
            rows.end_run(connection, run_id, "FINISHED" if whole else "KILLED", rows.now_ms())
        return len(new)
