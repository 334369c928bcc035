"""Bring the MLflow store in line with the records: new runs are added, changed ones replaced, the rest left alone."""

import dataclasses
import functools
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core.errors import RecordError
from ltpa.tracking import rows
from ltpa.tracking.content import Content, Source, parent_content, parent_seal, read_source, run_content
from ltpa.tracking.naming import ARTEFACTS, TAG_KEY, TAG_SEAL, experiment_name, run_key

_PARENT = "mlflow.parentRunId"


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes the runs of one scale. `models` also keeps networks of 5 MB and more among the artefacts."""

    connection: sqlite3.Connection
    results: Path
    scale: str
    models: bool

    def write(self, paths: Sequence[Path]) -> dict[str, str]:
        """Write every record and give, for each record's path below the results folder, its run id.

        Raises:
            RecordError: a record is unreadable, edited, of another scale, or given twice.
        """
        found: dict[str, str] = {}
        made: list[Path] = []
        try:
            for stage, networks in self._read(paths).items():
                folder = self.results.resolve() / ARTEFACTS / stage
                name = experiment_name(self.scale, stage)
                runs = _Runs(
                    self.connection, rows.experiment_id(self.connection, name, folder), self._index(name), made
                )
                for (dataset, variant), sources in networks.items():
                    key = run_key(stage, dataset, variant)
                    parent = runs.bring(key, parent_seal(sources), functools.partial(parent_content, sources), {})
                    for source in sources:
                        path = self._relative(source.path)
                        found[path] = runs.bring(
                            run_key(stage, dataset, variant, source.record.seed),
                            source.seal,
                            functools.partial(run_content, source, path, self.models),
                            {_PARENT: parent},
                        )
        except BaseException:  # the rows are taken back by whoever holds the connection
            for folder in made:
                shutil.rmtree(folder, ignore_errors=True)
            raise
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

    def _index(self, experiment: str) -> dict[str, rows.Kept]:
        """Whole runs by key. Runs of trainings that were followed, which have no seal, and second ones are deleted."""
        index: dict[str, rows.Kept] = {}
        for run in rows.read_runs(self.connection, [experiment]):
            if TAG_SEAL not in run.tags or run.tags[TAG_KEY] in index:
                rows.delete_run(self.connection, run.run_id)
            else:
                index[run.tags[TAG_KEY]] = run
        return index


@dataclasses.dataclass(frozen=True)
class _Runs:
    """The runs of one experiment, by key. `made` collects the folders of new ones."""

    connection: sqlite3.Connection
    experiment: int
    existing: dict[str, rows.Kept]
    made: list[Path]

    def bring(self, key: str, seal: str, content: Callable[[], Content], tags: dict[str, str]) -> str:
        """The id of the run `key` whose content has this seal; an older run of the same key is deleted."""
        old = self.existing.get(key)
        if old is not None and old.tags[TAG_SEAL] == seal:
            changed = {name: value for name, value in tags.items() if old.tags.get(name) != value}
            rows.set_tags(self.connection, old.run_id, changed)
            return old.run_id
        run_id = self._create(content(), {**tags, TAG_SEAL: seal})
        if old is not None:
            rows.delete_run(self.connection, old.run_id)
        return run_id

    def _create(self, content: Content, tags: dict[str, str]) -> str:
        name, started = content.name, content.started_ms
        run_id = rows.create_run(self.connection, self.experiment, name, started, {**content.tags, **tags})
        rows.set_params(self.connection, run_id, content.params)
        rows.add_points(self.connection, run_id, content.points, content.ended_ms)
        rows.end_run(self.connection, run_id, content.status, content.ended_ms)
        if content.artefacts:
            folder = rows.artefact_folder(self.connection, run_id)
            self.made.append(folder.parent)
            for path in content.artefacts:
                rows.keep_artefact(folder, path)
        return run_id
