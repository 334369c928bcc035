"""Verification of runs: every record against its place, its configuration, and the files beside and behind it."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.artefacts import files_of, sha256_of, sources_of
from ltpa.core.code import code_hash
from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.hashing import digest
from ltpa.core.per_image import load_hits
from ltpa.core.records import Record, read_record
from ltpa.core.specs import Spec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import read_boxes, read_sidecar
from ltpa.stages.verify_findings import Findings

_ONE_DATASET = ("train", "patches")  # whose `data_hash` is that of their dataset
_SAME = 1e-6  # percentage points; a share of images that was summed up in another order
_LISTED = 20  # missing runs, one line each


@dataclasses.dataclass(frozen=True)
class ExpectedRun:
    """One stage on one network, which a configuration wants for several seeds.

    `outputs` are the names of its files, `module` is where its code begins.
    """

    stage: str
    dataset: str
    variant: str
    spec: Spec
    seeds: Sequence[int]
    outputs: Sequence[str]
    module: str


class Runs:
    """Looks at runs, each after those that it draws on.

    Attributes:
        whole: path and record of each seed that nothing is wrong with.
    """

    def __init__(self, findings: Findings, datasets: Mapping[str, PreparedDataset], deep: bool) -> None:
        self.findings, self.datasets, self.deep = findings, datasets, deep
        self.whole: dict[Path, Record] = {}
        self._missing: list[str] = []
        self._other_data: dict[str, dict[Path, str]] = defaultdict(dict)
        self._same_data: Counter[str] = Counter()
        self._other_code = 0

    def look(self, run: ExpectedRun) -> None:
        """Compare all seeds of a run."""
        gone = []
        for seed in run.seeds:
            folder = layout.run_dir(self.findings.results, run.stage, run.dataset, run.variant, seed)
            if not any((folder / name).exists() for name in run.outputs):
                gone.append(str(seed))
                self.findings.blamed.update(folder / name for name in run.outputs)
                continue
            for name in run.outputs:
                if not (folder / name).is_file():
                    self.findings.missing(folder / name)
            if (folder / layout.RECORD).is_file():
                self._look_at(folder / layout.RECORD, run)
        if gone:
            seeds = f"seed{'s' if len(gone) > 1 else ''} {', '.join(gone)}"
            folder = self.findings.results / run.stage / run.dataset / run.variant
            self._missing.append(f"{folder}: {seeds} missing, though the configuration wants it")

    def conclude(self) -> None:
        """Say what only all runs together tell."""
        for line in self._missing[:_LISTED]:
            self.findings.tell(f"{line}; `{self.findings.remake}`")
        if len(self._missing) > _LISTED:
            self.findings.tell(f"{len(self._missing) - _LISTED} more runs are missing; `{self.findings.remake}`")
        for name, records in self._other_data.items():
            if len(records) > self._same_data[name]:  # all were made of other arrays: these are the odd ones
                manifest = layout.data_dir(self.findings.results, name) / layout.MANIFEST
                what = f"not the arrays that {len(records)} results were made of, such as {next(iter(records))}"
                self.findings.blame(manifest, what)
            else:
                for path, what in records.items():
                    self.findings.blame(path, what)
            for path in records:
                self.whole.pop(path, None)
                self.findings.blamed.add(path)
        if self._other_code:
            text = f"{self._other_code} results were made by other code than this; `ltpa plan --why` says what changed"
            self.findings.note(text)

    def _look_at(self, path: Path, run: ExpectedRun) -> None:
        try:
            record = read_record(path)
        except RecordError as error:
            self.findings.blame_for(path, error)
            self.findings.blamed.update(path.with_name(name) for name in run.outputs)  # nobody vouches for them
            return
        before = self.findings.count
        if record.scale != run.spec.scale:
            self.findings.blame(path, f"of scale {record.scale!r}, not {run.spec.scale!r}")
        elif record.config_hash != run.spec.hash():
            self.findings.blame(path, "made under another configuration")
        self._files(path, record)
        self._numbers(path, record)
        self._sources(path, record)
        self._data(path, record, run)
        if self.findings.count == before and path not in self.findings.blamed:
            self.whole[path] = record
            self._other_code += record.code_hash != code_hash([run.module, *run.spec.code])

    def _files(self, path: Path, record: Record) -> None:
        for name, expected in files_of(record).items():
            file = path.with_name(name)
            if file in self.findings.blamed:
                continue
            if not file.is_file():
                self.findings.missing(file)
            elif sha256_of(file) != expected:
                size = "empty" if not file.stat().st_size else "not the file that its record vouches for"
                self.findings.blame(file, f"{size} ({layout.RECORD} beside it)")
            elif self.deep:
                self._look_into(file, record)
        if record.stage == "patches" and record.status == "ok":
            self._sidecar(path.with_name(layout.BOXES), record)

    def _sidecar(self, boxes: Path, record: Record) -> None:
        sidecar = boxes.with_name(layout.BOXES_SIDECAR)
        if {boxes, sidecar} & self.findings.blamed:
            return
        try:
            facts = read_sidecar(boxes)
        except LtpaError as error:
            self.findings.blame_for(sidecar, error)
            return
        if facts["sha256"].get(layout.BOXES) != record.extra.get("sha256") or facts["dataset"] != record.dataset:
            self.findings.blame(sidecar, "not of the boxes beside it")

    def _look_into(self, file: Path, record: Record) -> None:
        """Whether a network or the boxes are what their place says."""
        try:
            if file.name == layout.MODEL:
                from ltpa.models.store import load

                extra = load(file, expect_variant=record.variant).metadata["extra"]
                own = {"dataset": record.dataset, "seed": record.seed, "spec": record.config_hash}
                if other := [key for key, value in own.items() if key in extra and extra[key] != value]:
                    key = other[0]
                    self.findings.blame(file, f"the network of another run ({key} {extra[key]}, not {own[key]})")
            elif file.name == layout.BOXES and record.dataset in self.datasets:
                for split in read_sidecar(file)["images"]:
                    read_boxes(file, self.datasets[record.dataset], split)
        except LtpaError as error:
            self.findings.blame_for(file, error)

    def _numbers(self, path: Path, record: Record) -> None:
        """The shares of images that the hits beside a record give."""
        if path.with_name(layout.HITS) in self.findings.blamed:
            return
        for name, condition in record.extra.get("hits", {}).get("rows", []):
            try:
                hits = load_hits(path.parent, record, name, condition)
            except (LtpaError, ValueError, IndexError) as error:
                self.findings.blame(path.with_name(layout.HITS), f"cannot be read ({error})")
                return
            right = 100 * float(np.mean(hits)) if hits is not None else 0.0
            share = 100 - right if name.endswith("error_pct") else right
            said = [m.value for m in record.metrics if (m.name, m.condition) == (name, condition)]
            if len(said) != 1 or abs(said[0] - share) > _SAME:
                self.findings.blame(path, f"says {name} {said}, and {layout.HITS} beside it gives {share:.6g}")

    def _sources(self, path: Path, record: Record) -> None:
        for below, expected in sources_of(record).items():
            source = self.findings.results / below
            if source in self.findings.blamed:
                continue
            if sha256_of(source) != expected:
                self.findings.blame(path, f"made from another {source} than the one that lies there")

    def _data(self, path: Path, record: Record, run: ExpectedRun) -> None:
        single = run.stage in _ONE_DATASET
        names = [run.dataset] if single else [str(target["name"]) for target in getattr(run.spec, "targets", [])]
        if not all(name in self.datasets for name in names):
            return
        hashes = [self.datasets[name].data_hash for name in names]
        if record.data_hash == (hashes[0] if single else digest(hashes)):
            self._same_data.update(names)
        elif len(names) == 1:
            self._other_data[names[0]][path] = f"made from other arrays than those of {names[0]}"
        elif not self._other_data:
            self.findings.blame(path, f"made from other arrays than those of {', '.join(names)}")
