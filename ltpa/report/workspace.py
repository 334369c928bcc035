"""What stands in the way in the folder of a run: rights, space, locks, clock, damaged files; with remedies."""

import dataclasses
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.files import is_there
from ltpa.core.records import read_record

MINIMUM_FREE_GB = 2.0
MINIMUM_FREE_FILES = 10_000
_CLOCK_SLACK_SECONDS = 120
# One moment for all, so that none of them becomes newer than what was made from it.
REDATE = "find results .snakemake -newermt now -exec touch -d @$(date +%s) {} +"

# Folders below that hold no input or output of a job, and may be large: environments, artefacts of MLflow.
_ASIDE = ("conda", "apptainer", "singularity", "mlruns")

Finding = tuple[str, str]  # `ok`, `note` or `bad`, and a line of text


def examine_workspace(
    root: Path,
    results: Path,
    store: Callable[[], str | None],
    needed_bytes: int = 0,
    wanted: Collection[Path] = (),
) -> list[Finding]:
    """Findings about a run from folder `root` with results below `results`.

    Args:
        store: checks the MLflow store; raises `LtpaError` where it is damaged or locked, and returns any further note
            on it.
        needed_bytes: what all results together take on the disk.
        wanted: the records that the configuration wants.
    """
    folder = _existing(results)
    survey = Survey.of(root / ".snakemake", folder if folder == results else None)
    return [
        *_rights(root, folder, survey),
        *_space(folder, needed_bytes - survey.size),
        *_locks(root),
        *_clock(survey),
        *_encoding(),
        *_records(results, wanted),
        *_store(store),
    ]


@dataclasses.dataclass
class Survey:
    """What lies below some folders.

    Attributes:
        closed: folders that this user cannot read, write and enter.
        unreadable: files that this user cannot read.
        ahead: files dated in the future.
        size: bytes of all files.
    """

    closed: list[Path] = dataclasses.field(default_factory=list)
    unreadable: list[Path] = dataclasses.field(default_factory=list)
    ahead: list[Path] = dataclasses.field(default_factory=list)
    size: int = 0

    @classmethod
    def of(cls, *tops: Path | None) -> "Survey":
        """Walk through the folders that are there; what cannot be entered is `closed`."""
        survey, limit = cls(), time.time() + _CLOCK_SLACK_SECONDS
        for path in (inner for top in tops if top for inner in _below(top)):
            if path.is_dir():
                if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                    survey.closed.append(path)
                continue
            try:
                facts = path.lstat()
            except OSError:
                continue  # removed meanwhile
            survey.size += facts.st_size
            if stat.S_ISREG(facts.st_mode) and not os.access(path, os.R_OK):
                survey.unreadable.append(path)
            if facts.st_mtime > limit:
                survey.ahead.append(path)
        return survey


def _below(top: Path) -> Iterator[Path]:
    """A folder and everything below it, folders before what they hold; nothing where it is not there."""
    if is_there(top):
        yield top
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _ASIDE)
        yield from (Path(folder, name) for name in (*folders, *sorted(files)))


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that can be seen."""
    while not is_there(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _rights(root: Path, folder: Path, survey: Survey) -> list[Finding]:
    problems = []
    for place in dict.fromkeys((root, folder)):
        if not place.is_dir():
            problems.append(("bad", f"{place}: not a folder; move it away"))
        elif not os.access(place, os.R_OK | os.W_OK | os.X_OK) and place not in survey.closed:
            survey.closed.insert(0, place)
    for paths, what in ((survey.closed, "cannot write here"), (survey.unreadable, "cannot be read")):
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            text = (
                f"{paths[0]}{more}: {what} (owner {_owner(paths[0])}); mend the rights, or `snakemake --directory DIR`"
            )
            problems.append(("bad", text))
    return problems or [("ok", f"{root} and {folder} can be written")]


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "unknown"


def _space(folder: Path, needed_bytes: int) -> list[Finding]:
    free = shutil.disk_usage(folder).free / 1e9
    needed = max(MINIMUM_FREE_GB, needed_bytes / 1e9)
    facts = os.statvfs(folder)
    findings = []
    if free < needed:
        findings.append(("bad", f"{free:.1f} GB free for {folder}, {needed:.1f} GB needed; free some, or move results"))
    else:
        findings.append(("ok", f"{free:.1f} GB free for {folder}"))
    if facts.f_files and facts.f_favail < MINIMUM_FREE_FILES:
        findings.append(("bad", f"{facts.f_favail} more files fit for {folder} (inodes); remove files, or move it"))
    return findings


def _locks(root: Path) -> list[Finding]:
    findings = []
    if any(name.endswith(".lock") for name in _names(root / ".snakemake" / "locks")):
        findings.append(
            ("bad", f"{root} is locked by Snakemake; let the other run end, or after a kill: `snakemake --unlock`")
        )
    if cut := len(_names(root / ".snakemake" / "incomplete")):
        findings.append(("note", f"{cut} files of jobs that were cut off; `snakemake --rerun-incomplete` redoes them"))
    return findings


def _names(folder: Path) -> list[str]:
    """What lies in a folder; nothing where it cannot be read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 (names are all that is wanted)
    except OSError:
        return []


def _clock(survey: Survey) -> list[Finding]:
    if not survey.ahead:
        return []
    more = f" and {len(survey.ahead) - 1} more are" if len(survey.ahead) > 1 else " is"
    return [("bad", f"{survey.ahead[0]}{more} dated in the future; set the clock, then `{REDATE}`")]


def _encoding() -> list[Finding]:
    if sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return []
    return [("bad", f"file names are {sys.getfilesystemencoding()} here; export LC_ALL=C.UTF-8")]


def _records(results: Path, wanted: Collection[Path]) -> list[Finding]:
    paths = sorted(results.glob("*/*/*/seed-*/result.json")) if is_there(results) else []
    findings, failed = [], 0
    for path in paths:
        try:
            failed += read_record(path).status == "failed"
        except RecordError as error:
            findings.append(("bad", f"{error}"))
    if paths and not findings:
        findings.append(("ok", f"{len(paths)} result records can be read; `ltpa verify` compares them with all else"))
    if failed:
        findings.append(("note", f"{failed} runs are recorded as failed; `ltpa status` names them"))
    missing = [path for path in wanted if not is_there(path)]
    if paths and missing:
        text = f"{len(missing)} of the {len(wanted)} results that the configuration wants are missing, such as"
        findings.append(("note", f"{text} {missing[0]}; `snakemake all_tables` makes them, `ltpa verify` names all"))
    return findings


def _store(check: Callable[[], str | None]) -> list[Finding]:
    try:
        said = check()
    except LtpaError as error:
        return [("bad", str(error))]
    return [("note", said)] if said else []
