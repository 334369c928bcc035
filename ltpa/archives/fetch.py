"""Archives onto this machine: a user's own folders first, then the declared URLs; nothing unverified gets its name.

Which URLs are used: `https://` always. `http://` only where the connection need not be trusted, that is for an
archive whose checksum is declared or was recorded when it was first seen; for any other only if the user asks for it
(`Policy.allow_http`), and then its first-seen SHA-256 is recorded. A redirect from https to http is always refused.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from requests import Session

from ltpa.archives.declare import Archive
from ltpa.archives.progress import TransferProgress
from ltpa.archives.transfer import Part, Policy, Refused, open_session, transfer
from ltpa.archives.trust import LOCK_FILE, Mismatch, Trust, verify
from ltpa.core.errors import DataError
from ltpa.runtime.lock import exclusive

DEFAULT_POLICY = Policy()


def fetch(
    archives: Sequence[Archive],
    folder: Path,
    search: Sequence[Path] = (),
    progress: bool = True,
    policy: Policy = DEFAULT_POLICY,
) -> list[Path]:
    """Verified local files of `archives`, in their order; what is not there yet is downloaded to `folder`.

    A file of an archive's name in one of the `search` folders is used where it lies. Any number of processes may call
    this at once: each archive is transferred by one of them. A broken transfer leaves `<name>.part`, and goes on there.
    Digests trusted on first use are in `folder / LOCK_FILE`.

    Raises:
        DataError: a file that is already there is not the declared one; no URL gave it; the disk is full; a search
            folder does not exist.
        LtpaError: `folder` cannot be written.
    """
    for place in search:
        if not Path(place).is_dir():
            raise DataError(f"{place}: no such folder of archives; correct --archives")
    trust = Trust(Path(folder) / LOCK_FILE)
    places = [Path(place) for place in [*search, folder]]
    return [
        _find(archive, places, trust) or _download(archive, places[-1], trust, progress, policy) for archive in archives
    ]


def _find(archive: Archive, places: Sequence[Path], trust: Trust) -> Path | None:
    for place in places:
        path = place / archive.name
        if path.is_file():
            try:
                verify(path, archive, trust)
            except Mismatch as error:
                raise Mismatch(f"{error}; delete or replace this file") from error
            return path
    return None


def _download(archive: Archive, folder: Path, trust: Trust, progress: bool, policy: Policy) -> Path:
    show = TransferProgress(archive.name, progress)
    lock = folder / f".{archive.name}.lock"
    with exclusive(lock, lambda holder: show.note(f"waiting for {holder}, which downloads it")):
        path = _find(archive, [folder], trust)
        if path is not None:
            return path
        with open_session() as session:
            return _Download(archive, folder, trust, show, policy, session).run()


@dataclasses.dataclass(frozen=True)
class _Download:
    """The transfer of one archive, from whichever of its URLs gives it."""

    archive: Archive
    folder: Path
    trust: Trust
    show: TransferProgress
    policy: Policy
    session: Session

    def run(self) -> Path:
        part, problems = Part(self.folder, self.archive.name), []
        for url in self.archive.urls:
            try:
                self._refuse_http(url)
                self._complete(url, part)
            except Refused as error:
                problems.append(f"{url}: {error}")
                self.show.note(problems[-1])
                if part.length() == 0:
                    part.discard()
                continue
            target = self.folder / self.archive.name
            part.finish(target)
            return target
        raise DataError(
            f"{self.archive.name}: could not be downloaded ({'; '.join(problems)}); download it by other means and "
            "name its folder with --archives"
        )

    def _refuse_http(self, url: str) -> None:
        archive = self.archive
        safe = url.startswith("https://") or archive.hashed or self.trust.known(archive.name) is not None
        if not safe and not self.policy.allow_http:
            raise Refused("not encrypted, and no checksum is known; --allow-http takes it on trust")

    def _complete(self, url: str, part: Part) -> None:
        """Bring `part` to the verified content of `url`; pieces that do not fit together are fetched anew, once."""
        problem = self._try(url, part)
        if problem is not None and part.joined:
            part.discard()
            self.show.note("the joined pieces are not the declared file; starting again")
            problem = self._try(url, part)
        if problem is not None:
            part.discard()
            raise Refused(f"gave something else ({problem})") from problem

    def _try(self, url: str, part: Part) -> Mismatch | None:
        """Complete and verify `part`; returns what is wrong with its content."""
        if self.archive.size is None or part.length() != self.archive.size:
            transfer(url, part, self.archive, self.policy, self.session, self.show)
        try:
            verify(part.path, self.archive, self.trust)
        except Mismatch as error:
            return error
        return None
