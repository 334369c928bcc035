"""Bring the MLflow store in line with the records: new runs are added, changed ones replaced, the rest left alone."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ltpa.core.errors import RecordError
from ltpa.tracking.content import Content, Source, parent_content, read_source, run_content
from ltpa.tracking.naming import TAG_KEY, TAG_SEAL, experiment_name
from ltpa.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_METRICS_PER_BATCH = 800  # MLflow takes 1000 entities at a time, at most 100 of them parameters
_PARAMS_PER_BATCH = 100
_PARENT = "mlflow.parentRunId"
_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes the runs of one scale. `models` also keeps networks of 5 MB and more among the artefacts."""

    client: "MlflowClient"
    results: Path
    scale: str
    models: bool

    def write(self, paths: Sequence[Path]) -> dict[str, str]:
        """Write every record and give, for each record's path below the results folder, its run id.

        Raises:
            RecordError: a record is unreadable, edited, of another scale, or given twice.
        """
        found: dict[str, str] = {}
        for stage, networks in self._read(paths).items():
            experiment = experiment_id(self.client, self.results, experiment_name(self.scale, stage))
            existing = self._index(experiment)
            for sources in networks.values():
                parent = self._write_run(experiment, existing, parent_content(sources), {})
                for source in sources:
                    path = self._relative(source.path)
                    content = run_content(source, path, self.models)
                    found[path] = self._write_run(experiment, existing, content, {_PARENT: parent})
        return dict(sorted(found.items()))

    def _read(self, paths: Sequence[Path]) -> dict[str, dict[tuple[str, str], list[Source]]]:
        """The records by stage, then by dataset and variant, seeds in order."""
        stages: dict[str, dict[tuple[str, str], list[Source]]] = {}
        sources = sorted((read_source(path) for path in paths), key=lambda source: source.record.seed)
        for source in sources:
            record = source.record
            if record.scale != self.scale:
                raise RecordError(f"{source.path}: of scale {record.scale!r}, this store is of {self.scale!r}")
            group = stages.setdefault(record.stage, {}).setdefault((record.dataset, record.variant), [])
            if group and group[-1].record.seed == record.seed:
                raise RecordError(f"{source.path}: the same run as {group[-1].path}; give each record once")
            group.append(source)
        return stages

    def _relative(self, path: Path) -> str:
        path, results = path.resolve(), self.results.resolve()
        return path.relative_to(results).as_posix() if path.is_relative_to(results) else path.as_posix()

    def _index(self, experiment: str) -> dict[str, "Run"]:
        """Whole runs by key. Runs that an interrupted writer left unfinished, or doubled, are deleted."""
        index: dict[str, Run] = {}
        for run in all_runs(self.client, [experiment]):
            key = run.data.tags.get(TAG_KEY, "")
            if not key:
                continue
            if TAG_SEAL not in run.data.tags or key in index:
                self.client.delete_run(run.info.run_id)
            else:
                index[key] = run
        return index

    def _write_run(self, experiment: str, existing: dict[str, "Run"], content: Content, tags: dict[str, str]) -> str:
        """The id of the run that holds `content`; an older run of the same key is deleted once the new one is whole."""
        old = existing.get(content.key)
        if old is not None and old.data.tags[TAG_SEAL] == content.seal:
            for name, value in tags.items():
                if old.data.tags.get(name) != value:
                    self.client.set_tag(old.info.run_id, name, value)
            return str(old.info.run_id)
        run_id = self._create(experiment, content, tags)
        if old is not None:
            self.client.delete_run(old.info.run_id)
        return run_id

    def _create(self, experiment: str, content: Content, tags: dict[str, str]) -> str:
        from mlflow.entities import Metric, Param

        run = self.client.create_run(
            experiment, start_time=content.started_ms, tags={**content.tags, **tags}, run_name=content.name
        )
        run_id = str(run.info.run_id)
        for params in _batches(list(content.params.items()), _PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=[Param(name, value) for name, value in params])
        for points in _batches(content.points, _METRICS_PER_BATCH):
            metrics = [Metric(point.name, point.value, content.ended_ms, point.step) for point in points]
            self.client.log_batch(run_id, metrics=metrics)
        for path in content.artefacts:
            self.client.log_artifact(run_id, str(path))
        self.client.set_terminated(run_id, status=content.status, end_time=content.ended_ms)
        self.client.set_tag(run_id, TAG_SEAL, content.seal)  # last: a run with this tag is whole
        return run_id


def all_runs(client: "MlflowClient", experiments: Sequence[str]) -> Iterator["Run"]:
    """Every active run of the experiments, oldest first."""
    token = None
    while experiments:
        page = client.search_runs(list(experiments), max_results=1000, order_by=["start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
