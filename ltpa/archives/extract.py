"""Archives into a folder: allowed regular files only, all or nothing.

An archive with any hostile member (a link, a device, a name that leads elsewhere, an encrypted one) is refused whole.
Members that are harmless but not on the allow-list are passed over. Everything is written to a folder beside the target
that takes its name only when complete, so a target folder that exists is complete.
"""

import contextlib
import json
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.archives.containers import plain_tar_members, targz_members, zip_members
from ltpa.archives.declare import PLAIN, Archive
from ltpa.archives.members import Intake, Members, Taken
from ltpa.archives.rar import rar_members
from ltpa.core.errors import DataError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest
from ltpa.runtime.lock import exclusive

STAMP = ".extracted.json"
_READERS: dict[str, Callable[[Path], Members]] = {
    "tar.gz": targz_members,
    "tar": plain_tar_members,
    "zip": zip_members,
    "rar": rar_members,
}
_NESTED_KINDS = {".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar": "tar", ".zip": "zip"}
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
           RuntimeError)  # fmt: skip


def extract(path: Path, archive: Archive, target: Path) -> Path:
    """Extract one archive to the folder `target`; see `extract_all`."""
    return extract_all([path], [archive], target)


def extract_all(
    paths: Sequence[Path], archives: Sequence[Archive], target: Path, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Extract the files `paths`, declared by `archives`, together to the folder `target`, and return it.

    A target that was made from the same declarations and files is left as it is; several processes may ask at once.
    Plain files are linked, or copied where they cannot be. `say` takes a line about unusual members.

    Raises:
        DataError: a member is hostile, a limit is passed, an archive is damaged or holds nothing that is wanted, the
            disk is full, or `target` was made from something else. Nothing is left behind.
        LtpaError: the folder of `target` cannot be written.
    """
    target = Path(target)
    stamp = _stamp(paths, archives)
    with exclusive(target.with_name(f".{target.name}.lock")):
        if target.exists():
            _check_stamp(target, stamp)
            return target
        draft = target.with_name(f".{target.name}.part")
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        taken: Taken = {}
        try:
            for path, archive in zip(paths, archives, strict=True):
                _extract_one(Path(path), archive, draft, taken, say)
            write_text(draft / "files" / STAMP, json.dumps({"made_from": stamp}) + "\n")
            (draft / "files").rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _stamp(paths: Sequence[Path], archives: Sequence[Archive]) -> str:
    """Hash of what the content of a target depends on."""
    parts = []
    for path, archive in zip(paths, archives, strict=True):
        if not Path(path).is_file():
            raise DataError(f"{path}: no such archive; fetch it, or name its folder with --archives")
        declaration = archive.model_dump(include={"name", "kind", "sha256", "md5", "members", "nested"})
        parts.append([declaration, Path(path).stat().st_size])
    return digest(parts)


def _check_stamp(target: Path, stamp: str) -> None:
    try:
        made_from = json.loads((target / STAMP).read_text(encoding="utf-8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        made_from = None
    if made_from != stamp:
        raise DataError(f"{target}: not extracted from these archives as declared now; delete it to extract them anew")


def _extract_one(path: Path, archive: Archive, draft: Path, taken: Taken, say: Callable[[str], None]) -> None:
    intake = Intake(archive, path, draft / "files", taken)
    if archive.kind in PLAIN:
        intake.link(archive.name)
        return
    try:
        _pour(path, archive.kind, "", intake, draft / "nested")
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged, or not a {archive.kind} file ({error}); get the archive anew") from error
    if not intake.files:
        raise DataError(f"{path}: holds no member like {', '.join(archive.members or [])}; is it the right archive?")
    if intake.backslashes:
        say(f"{path.name}: {intake.backslashes} names have backslashes between folders, as of Windows; read as slashes")


def _pour(path: Path, kind: str, prefix: str, intake: Intake, scratch: Path) -> None:
    """Hand the members of an archive, and of those nested in it, to the intake."""
    with contextlib.closing(_READERS[kind](path)) as members:
        for member in members:
            name = intake.admit(member, prefix)
            if member.open is None:
                continue
            inner = next((kind for suffix, kind in _NESTED_KINDS.items() if name.endswith(suffix)), None)
            if not prefix and inner and intake.nests(name):
                intake.copy(name, member.open(), scratch)
                _pour(scratch, inner, name.rpartition("/")[0] + "/", intake, scratch)
                scratch.unlink()
            elif intake.wants(name):
                intake.write(name, member.open())
