"""Running trainings in the MLflow store: their epochs as they end, read from the files they write, never from them.

A followed training is a run without the seal that a whole run has, so `ltpa.tracking.writer` replaces it by the run of
the finished record.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa.runtime.lock import in_use
from ltpa.tracking.naming import TAG_KEY, clean, experiment_name, run_key
from ltpa.tracking.store import experiment_id
from ltpa.training.journal import read_about, read_metrics

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

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

    def look(self, client: "MlflowClient") -> int:
        """Write what is new, and give how many epochs that were. Call it under the store's lock."""
        running = set(self.running())
        new = 0
        for folder in sorted(running | self._seen):
            about = read_about(folder)
            if about is not None:
                new += self._update(client, folder, about, read_metrics(folder), folder in running)
        self._seen = running
        return new

    def _update(
        self, client: "MlflowClient", folder: Path, about: dict[str, Any], rows: list[dict[str, Any]], running: bool
    ) -> int:
        from mlflow.entities import Metric

        stage, key = folder.parent.name, folder.name
        experiment = experiment_id(client, self.results, experiment_name(self.scale, stage))
        run = self._find(client, experiment, key) or client.create_run(
            experiment,
            run_name=f"{about['variant']} {about['dataset']} seed {about['seed']} (running)",
            tags={
                TAG_KEY: run_key(stage, about["dataset"], about["variant"], about["seed"]),
                TAG_STATE: key,
                _TAG_EPOCHS: "0",
            },
        )
        run_id, now = str(run.info.run_id), int(time.time() * 1000)
        known = int(run.data.tags[_TAG_EPOCHS])
        new = [row for row in rows if row["epoch"] > known]
        metrics = [
            Metric(f"epoch/{clean(name)}", float(value), now, row["epoch"])
            for row in new
            for name, value in row.items()
            if name != "epoch" and value is not None
        ]
        for start in range(0, len(metrics), 800):
            client.log_batch(run_id, metrics=metrics[start : start + 800])
        if new:
            client.set_tag(run_id, _TAG_EPOCHS, str(new[-1]["epoch"]))
        if not running:
            whole = bool(rows) and rows[-1]["epoch"] == about.get("recipe", {}).get("epochs")
            client.set_terminated(run_id, status="FINISHED" if whole else "KILLED")
        return len(new)

    @staticmethod
    def _find(client: "MlflowClient", experiment: str, key: str) -> "Run | None":
        found = client.search_runs([experiment], filter_string=f"tags.`{TAG_STATE}` = '{key}'", max_results=1)
        return found[0] if found else None
