"""What stands in the way in the folder of a run: rights, space, locks, clock, damaged files; with remedies."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.records import read_record

MINIMUM_FREE_GB = 2.0
MINIMUM_FREE_FILES = 10_000
_CLOCK_SLACK_SECONDS = 120

Finding = tuple[str, str]  # `ok`, `note` or `bad`, and a line of text


def examine_workspace(root: Path, results: Path, store: Callable[[], None]) -> list[Finding]:
    """Findings about a run from folder `root` with results below `results`.

    Args:
        store: checks the MLflow store and raises `LtpaError` where it is damaged or locked.
    """
    folder = _existing(results)
    return [
        *_rights(root, folder),
        *_space(folder),
        *_locks(root),
        *_clock(folder),
        *_encoding(),
        *_records(results),
        *_store(store),
    ]


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _rights(root: Path, folder: Path) -> list[Finding]:
    problems = []
    for place in dict.fromkeys((root, root / ".snakemake", folder, *_children(folder))):
        if not place.exists():
            continue
        if place in (root, folder) and not place.is_dir():
            problems.append(("bad", f"{place}: not a folder; move it away"))
        elif place.is_dir() and not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            owner = _owner(place)
            problems.append(
                ("bad", f"{place}: cannot write here (owner {owner}); mend its rights, or `snakemake --directory DIR`")
            )
    return problems or [("ok", f"{root} and {folder} can be written")]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "unknown"


def _space(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(folder).free / 1e9
    facts = os.statvfs(folder)
    findings = []
    if free < MINIMUM_FREE_GB:
        findings.append(("bad", f"{free:.1f} GB free for {folder}; the embedded default needs {MINIMUM_FREE_GB:g} GB"))
    else:
        findings.append(("ok", f"{free:.1f} GB free for {folder}"))
    if facts.f_files and facts.f_favail < MINIMUM_FREE_FILES:
        findings.append(("bad", f"{facts.f_favail} more files fit for {folder} (inodes); remove files, or move it"))
    return findings


def _locks(root: Path) -> list[Finding]:
    findings = []
    if any((root / ".snakemake" / "locks").glob("*.lock")):
        findings.append(
            ("bad", f"{root} is locked by Snakemake; let the other run end, or after a kill: `snakemake --unlock`")
        )
    if cut := sum(1 for _ in (root / ".snakemake" / "incomplete").glob("*")):
        findings.append(("note", f"{cut} files of jobs that were cut off; `snakemake --rerun-incomplete` redoes them"))
    return findings


def _clock(folder: Path) -> list[Finding]:
    limit = time.time() + _CLOCK_SLACK_SECONDS
    ahead = [path for path in _sample(folder) if path.lstat().st_mtime > limit]
    if ahead:
        text = f"{ahead[0]} and {len(ahead) - 1} more are dated in the future; set the clock, then `touch` them"
        return [("bad", text.replace(" and 0 more are", " is").replace("`touch` them", "`touch` it"))]
    return []


def _sample(folder: Path) -> Iterable[Path]:
    """Files of the results two levels deep and all manifests: those whose time Snakemake compares first."""
    if folder.is_dir():
        yield from (path for path in folder.glob("*/*") if path.is_file())
        yield from folder.glob("data/*/manifest.json")


def _encoding() -> list[Finding]:
    if sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return []
    return [("bad", f"file names are {sys.getfilesystemencoding()} here; export LC_ALL=C.UTF-8")]


def _records(results: Path) -> list[Finding]:
    paths = sorted(results.glob("*/*/*/seed-*/result.json"))
    damaged, failed = [], 0
    for path in paths:
        try:
            failed += read_record(path).status == "failed"
        except RecordError as error:
            damaged.append(("bad", f"{error}"))
    if failed:
        damaged.append(("note", f"{failed} runs are recorded as failed; `ltpa status` names them"))
    return damaged or [("ok", f"{len(paths)} result records, all whole")] if paths else []


def _store(check: Callable[[], None]) -> list[Finding]:
    try:
        check()
    except LtpaError as error:
        return [("bad", str(error))]
    return []
