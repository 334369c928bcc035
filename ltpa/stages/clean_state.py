"""Remove saved states of trainings that nothing refers to any more: other recipes, other data, older code."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from ltpa.core import layout
from ltpa.core.errors import LtpaError
from ltpa.core.provenance import code_hash, library_versions
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.training.journal import read_about
from ltpa.training.lock import exclusive, in_use

_STAGE = "train"


class _Busy(Exception):
    """Somebody trains there."""


def run(
    results: Path, wanted: Iterable[tuple[TrainSpec, int]], dry_run: bool, say: Callable[[str], None] = print
) -> int:
    """Remove the state folders below `results` that belong to none of the `wanted` trainings; give their size in bytes.

    A folder that a process holds is left alone. So is one whose dataset is not prepared now: whether its data is still
    the same cannot be told.

    Args:
        wanted: spec and seed of every training of the configuration.
        dry_run: only say what would go.
        say: is told each folder, and why it goes or stays.
    """
    code = code_hash(f"ltpa.stages.{_STAGE}")
    current: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for spec, seed in wanted:
        current[spec.dataset, spec.variant, seed].add(spec.hash())
    freed = 0
    for folder in sorted((results / "state" / _STAGE).glob("*")):
        reason = _stale(results, folder, current, code)
        if not reason:
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if in_use(folder) or not (dry_run or _remove(folder)):
            say(f"{folder}: {reason}, but a process trains there; left alone")
            continue
        freed += size
        say(f"{folder}: {reason}; {size} bytes {'would be' if dry_run else ''} freed".replace("  ", " "))
    return freed


def _stale(results: Path, folder: Path, current: dict[tuple[str, str, int], set[str]], code: str) -> str:
    """Why nothing refers to a state folder; empty where something does, or may."""
    about = read_about(folder)
    if about is None:
        return "does not say what it belongs to"
    name = f"{about.get('variant')} on {about.get('dataset')}, seed {about.get('seed')}"
    wanted = current.get((about.get("dataset", ""), about.get("variant", ""), about.get("seed", -1)))
    if wanted is None:
        return f"{name} is not in the configuration"
    if about.get("config_hash") not in wanted:
        return f"{name}: of another recipe or network"
    if about.get("code_hash") != code:
        return f"{name}: of other code"
    versions = library_versions()
    for library in ("torch", "numpy"):
        if about.get(library) != versions.get(library, ""):
            return f"{name}: of another version of {library}"
    try:
        data = PreparedDataset.open(layout.data_dir(results, about["dataset"])).data_hash
    except LtpaError:
        return ""
    return "" if about.get("data_hash") == data else f"{name}: of other data"


def _remove(folder: Path) -> bool:
    """Remove a folder under its lock; false where somebody else holds it."""

    def busy(holder: int) -> None:
        raise _Busy

    try:
        with exclusive(folder, busy):
            shutil.rmtree(folder)
        return True
    except _Busy:
        return False
