"""Remove saved states that nothing refers to any more: of other recipes, other data, older code."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.code import code_hash
from ltpa.core.errors import DataError, LtpaError
from ltpa.core.hashing import sha256_file
from ltpa.core.provenance import computing_libraries
from ltpa.core.records import read_record
from ltpa.core.specs import PatchSpec, TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.runtime.lock import exclusive_folder, in_use
from ltpa.stages.preprocessing import KEPT_SCHEMES, STAGE, fitting_code
from ltpa.training.journal import read_about
from ltpa.training.recipe import Recipe, read_recipe

Wanted = Mapping[str, Iterable[tuple[TrainSpec | PatchSpec, int]]]


class _Busy(Exception):
    """Somebody works there."""


def run(results: Path, wanted: Wanted, dry_run: bool, say: Callable[[str], None] = print) -> int:
    """Remove the state folders below `results` that belong to no job `wanted`; give their size in bytes.

    A folder that a process holds is left alone. So is one whose dataset is not prepared now: whether its data is still
    the same cannot be known.

    Args:
        wanted: for each stage that saves states, spec and seed of every job of the configuration. Fitted preprocessing
            is wanted where a training is that asks for it.
        dry_run: only say what would go.
        say: prints a line about each folder, and why it goes or stays.
    """
    reasons: dict[str, Callable[[dict[str, Any]], str]] = {
        stage: _Jobs(results, stage, jobs).stale for stage, jobs in wanted.items()
    }
    reasons[STAGE] = _Preprocessing(results, wanted).stale
    freed = 0
    for kind in sorted((results / "state").glob("*")):
        if kind.name not in reasons:
            say(f"{kind}: this version saves no such states; left alone, delete it if no other one does")
            continue
        for folder in sorted(kind.glob("*")):
            about = read_about(folder)
            reason = "does not say what it belongs to" if about is None else reasons[kind.name](about)
            if reason:
                freed += _clear(folder, reason, dry_run, say)
    return freed


def _clear(folder: Path, reason: str, dry_run: bool, say: Callable[[str], None]) -> int:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if in_use(folder) or not (dry_run or _remove(folder)):
        say(f"{folder}: {reason}, but a process works there; left alone")
        return 0
    say(f"{folder}: {reason}; {size} bytes {'would be' if dry_run else ''} freed".replace("  ", " "))
    return size


class _Jobs:
    """Which states of a stage the jobs of a configuration refer to."""

    def __init__(self, results: Path, stage: str, jobs: Iterable[tuple[TrainSpec | PatchSpec, int]]) -> None:
        self.results, self.module = results, f"ltpa.stages.{stage}"
        self.specs: dict[tuple[str, str, int], dict[str, TrainSpec | PatchSpec]] = {}
        for spec, seed in jobs:
            self.specs.setdefault((spec.dataset, spec.variant, seed), {})[spec.hash()] = spec

    def stale(self, about: dict[str, Any]) -> str:
        """Why nothing refers to a state; empty where something does, or may."""
        name = f"{about.get('variant')} on {about.get('dataset')}, seed {about.get('seed')}"
        wanted = self.specs.get((about.get("dataset", ""), about.get("variant", ""), about.get("seed", -1)))
        if wanted is None:
            return f"{name} is not in the configuration"
        if about.get("config_hash") not in wanted:
            return f"{name}: of another recipe or network"
        if about.get("code_hash") != code_hash([self.module, *wanted[about["config_hash"]].code]):
            return f"{name}: of other code"
        there, here = about.get("libraries") or {}, computing_libraries()
        for library in {**here, **there}:
            if there.get(library) != here.get(library):
                return f"{name}: of another version of {library}"
        if _of_other_data(self.results, about):
            return f"{name}: of other data"
        if self._starts_elsewhere(wanted[about["config_hash"]], about["seed"], about.get("start") or {}):
            return f"{name}: begun from another network or other patches"
        return ""

    def _starts_elsewhere(self, spec: TrainSpec | PatchSpec, seed: int, start: dict[str, str]) -> bool:
        """Whether what the job starts from is there, and is not what the state was begun with."""
        try:
            if isinstance(spec, TrainSpec) and spec.start is not None:
                source = layout.run_dir(self.results, "train", spec.start["dataset"], spec.variant, seed)
                return bool(read_record(source / layout.RECORD).extra["model_sha256"] != start.get("model_sha256"))
            if isinstance(spec, TrainSpec) and (patches := read_recipe(spec.recipe, spec.variant).patch_source):
                boxes = layout.boxes_path(self.results, spec.dataset, patches, seed)
                return sha256_file(boxes) != start.get("boxes")
        except (LtpaError, OSError):
            return False
        return False


class _Preprocessing:
    """Which fitted preprocessings the trainings of a configuration refer to."""

    def __init__(self, results: Path, wanted: Wanted) -> None:
        self.results, self.code = results, fitting_code()
        default = Recipe.model_fields["normalise"].default
        specs = [spec for jobs in wanted.values() for spec, _ in jobs if isinstance(spec, TrainSpec)]
        asked = {(spec.dataset, spec.recipe.get("normalise", default)) for spec in specs}
        self.pairs = {(dataset, scheme) for dataset, scheme in asked if scheme in KEPT_SCHEMES}

    def stale(self, about: dict[str, Any]) -> str:
        """Why nothing refers to a fitted preprocessing; empty where something does, or may."""
        pair = about.get("dataset"), about.get("scheme")
        name = f"{pair[1]} of {pair[0]}"
        if pair not in self.pairs:
            return f"{name} is not in the configuration"
        if about.get("code_hash") != self.code:
            return f"{name}: of other code"
        return f"{name}: of other data" if _of_other_data(self.results, about) else ""


def _of_other_data(results: Path, about: dict[str, Any]) -> bool:
    """Whether the dataset of a state is prepared now, and is not the one it was begun with."""
    try:
        data = PreparedDataset.open(layout.data_dir(results, about["dataset"])).data_hash
    except DataError:
        return False
    return bool(about.get("data_hash") != data)


def _remove(folder: Path) -> bool:
    """Remove a folder under its lock; false where somebody else holds it."""

    def busy(holder: str) -> None:
        raise _Busy

    try:
        with exclusive_folder(folder, busy):
            shutil.rmtree(folder)
        return True
    except _Busy:
        return False
