"""One URL into one partial file: resume, retries with back-off, and no redirect from https to http.

Written on `requests` (which pooch, too, downloads with) because pooch 1.9 always starts from byte 0, follows a redirect
from https to http, does not retry a cut transfer, and takes a web page for a file.
"""

import dataclasses
import errno
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3

import ltpa
from ltpa.archives.declare import Archive
from ltpa.archives.progress import TransferProgress
from ltpa.core.errors import DataError
from ltpa.core.text import printable

_CHUNK = 1 << 18
_HEADWAY = 1 << 20  # bytes gained that make a failure count as the first one again
_LONGEST_PAUSE = 60.0  # seconds
_MOST_DIGITS = 18  # digits of a length or pause; no real one has more
_LONGEST_TEXT = 200  # letters of a server's answer that are shown or kept
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Policy:
    """How transfers behave.

    Attributes:
        allow_http: take `http://` URLs even for an archive without a known checksum.
        attempts: failures in a row, without headway, after which a URL is given up.
        pause: seconds before the second attempt; doubles with every further failure, up to a minute.
        timeout: seconds without an answer or a byte that count as a failure.
        least_rate, window: bytes a second, on average over so many seconds; a transfer that is slower counts as failed.
        ca_file: certificates to trust instead of the usual ones (a site's own authority).
    """

    allow_http: bool = False
    attempts: int = 5
    pause: float = 1.0
    timeout: float = 60.0
    least_rate: float = 1000.0
    window: float = 60.0
    ca_file: Path | None = None


class _Failure(Exception):
    """What went wrong with a URL, cleaned: most of the text may be the server's."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class Refused(_Failure):
    """This URL does not give the file; asking it again would not help."""


class TransferFailed(_Failure):
    """The transfer broke off, or could not begin; `pause` is how many seconds the server asks to wait."""

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause


class Part:
    """The partial file `<name>.part` and, beside it, which URL and version of the content it comes from.

    `joined` says whether the bytes are of more than one answer.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.part"
        self._note = folder / f"{name}.part.json"
        self.joined = self.length() > 0

    def length(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> tuple[str, str]:
        """URL and validator (strong ETag or modification date) of these bytes; empty where unknown."""
        try:
            url, validator = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "", ""
        return str(url), str(validator)

    def begin(self, url: str, validator: str) -> None:
        """Empty the partial file for the content of `url`."""
        self.joined = False
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps([url, validator]), encoding="utf-8")

    def discard(self) -> None:
        """Remove what has arrived."""
        self.joined = False
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Rename the complete and verified file to `target`."""
        with open(self.path, "rb+") as stream:
            os.fsync(stream.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


class _Session(requests.Session):
    """A session whose redirects never lead from https to anything else."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:") and not urljoin(resp.url, target).startswith("https:"):
            raise Refused(f"redirects from https to {_short(urljoin(resp.url, target))}")
        if target:
            resp.close()  # or its body, of any length, would be read into memory
        return target


def open_session() -> requests.Session:
    """A session for `transfer`; close it after use."""
    session = _Session()
    session.headers.update({"User-Agent": f"ltpa/{ltpa.__version__}", "Accept-Encoding": "identity"})
    return session


def transfer(
    url: str, part: Part, archive: Archive, policy: Policy, session: requests.Session, show: TransferProgress
) -> None:
    """Bring `part` to the full content of `url`, from where it stands if that is safe.

    Raises:
        Refused: the URL does not give the file, or broke off `policy.attempts` times in a row.
        DataError: the disk is full.
    """
    failures, best = 0, part.length()
    while True:
        try:
            return _attempt(url, part, archive, policy, session, show)
        except TransferFailed as error:
            if part.length() >= best + _HEADWAY:
                failures, best = 0, part.length()
            failures += 1
            if failures >= policy.attempts:
                raise Refused(f"{error}; given up after {failures} attempts") from error
            pause = min(max(error.pause, policy.pause * 2 ** (failures - 1)), _LONGEST_PAUSE)
            show.note(f"{error}; trying again in {pause:.0f} s")
            time.sleep(pause)
        finally:
            show.end()


def _attempt(
    url: str, part: Part, archive: Archive, policy: Policy, session: requests.Session, show: TransferProgress
) -> None:
    offset, headers = _resume(url, part, archive)
    trusted = None if policy.ca_file is None else str(policy.ca_file)
    try:
        with session.get(url, headers=headers, stream=True, timeout=policy.timeout, verify=trusted) as response:
            total = _check(response, part, offset, archive)
            if response.status_code == 416:
                return
            if response.status_code == 200:
                part.begin(url, _validator(response))
            else:
                part.joined = True
            show.begin(part.length(), total)
            _receive(response, part, archive, total, policy, show)
    except (Refused, TransferFailed, DataError):
        raise
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Refused(
                "its certificate is not trusted; name a site's own authority in REQUESTS_CA_BUNDLE"
            ) from error
        raise TransferFailed(f"connection failed ({_short(error)})") from error
    except requests.RequestException as error:
        raise Refused(f"cannot be asked ({_short(error)})") from error
    except OSError as error:  # of our own files; those of the network were one of the above
        raise _write_error(part, archive, error) from error
    except Exception as error:  # the libraries below stumble over malformed answers in many ways
        raise Refused(f"gives an answer that cannot be read ({_short(error)})") from error


def _resume(url: str, part: Part, archive: Archive) -> tuple[int, dict[str, str]]:
    """Byte to go on from, and the headers that ask for it.

    Bytes of another version must not be joined. Either the server can tell (`If-Range`), or the checksum will.
    """
    offset = part.length()
    origin, validator = part.origin()
    if offset and origin == url and validator:
        return offset, {"Range": f"bytes={offset}-", "If-Range": validator}
    if offset and archive.hashed:
        return offset, {"Range": f"bytes={offset}-"}
    return 0, {}


def _check(response: requests.Response, part: Part, offset: int, archive: Archive) -> int | None:
    """Judge the head of an answer; returns the file's full length if the answer gives it."""
    status = response.status_code
    if status in _TEMPORARY:
        raise TransferFailed(f"HTTP {status} {_short(response.reason)}", _retry_after(response))
    if status not in (200, 206, 416):
        raise Refused(f"HTTP {status} {_short(response.reason)}")
    if status == 200:
        start, total = 0, _number(response.headers.get("Content-Length"))
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise Refused("answers with a web page instead of the file")
    else:
        start, total = _content_range(response, offset)
        if start != offset or offset == 0 or _other_version(response):
            part.discard()
            raise TransferFailed("the file changed, or another piece of it was sent; starting again")
    if total is not None and archive.size is not None and total != archive.size:
        raise Refused(f"offers {total:,} bytes, not the declared {archive.size:,}")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "")
    if total is None and not chunked and archive.size is None and not archive.hashed:
        raise Refused("gives no length and no checksum is known, so a cut transfer would go unnoticed")
    return total


def _content_range(response: requests.Response, offset: int) -> tuple[int, int | None]:
    """First byte and full length that a 206 or 416 answer speaks of; a 416 for a complete file starts at its end."""
    text = response.headers.get("Content-Range", "").removeprefix("bytes").strip()
    span, _, length = text.partition("/")
    if response.status_code == 416:
        return (offset if _number(length) == offset else -1), _number(length)
    first = _number(span.partition("-")[0])
    return (-1 if first is None else first), _number(length)


def _receive(
    response: requests.Response,
    part: Part,
    archive: Archive,
    total: int | None,
    policy: Policy,
    show: TransferProgress,
) -> None:
    length, expected = part.length(), total or archive.size
    pace = _Pace(policy, length)
    _need_space(part.path.parent, archive.name, None if expected is None else expected - length)
    with open(part.path, "ab") as stream:
        # Undecoded: a server that labels a .tar.gz as gzip-encoded means the file itself. In the pieces that arrive, so
        # that what came before a break is kept, and a slow server is noticed.
        while block := response.raw.read1(_CHUNK, decode_content=False):
            length += len(block)
            if expected is not None and length > expected:
                part.discard()
                raise Refused(f"sends more than the {expected:,} bytes of the file")
            stream.write(block)
            stream.flush()
            show.advance(len(block))
            pace.check(length)
    if expected is not None and length < expected:
        raise TransferFailed(f"cut after {length:,} of {expected:,} bytes")


class _Pace:
    """Watches that a transfer does not fall below the least rate; every window is judged by itself."""

    def __init__(self, policy: Policy, length: int) -> None:
        self._policy, self._since, self._length = policy, time.monotonic(), length

    def check(self, length: int) -> None:
        """Note that `length` bytes are there.

        Raises:
            TransferFailed: too few arrived in the window that has ended.
        """
        seconds = time.monotonic() - self._since
        if seconds < self._policy.window:
            return
        rate = (length - self._length) / seconds
        if rate < self._policy.least_rate:
            raise TransferFailed(f"too slow: {rate:.1f} bytes a second over {seconds:.0f} s")
        self._since, self._length = time.monotonic(), length


def _need_space(folder: Path, name: str, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and free < needed:
        raise DataError(
            f"{folder}: {name} needs {needed:,} bytes more and {free:,} are free; free space or choose another folder"
        )


def _write_error(part: Part, archive: Archive, error: OSError) -> DataError:
    missing = "" if archive.size is None else f"; {archive.size - part.length():,} bytes of {archive.name} are missing"
    what = "disk full" if error.errno in _FULL else f"cannot write ({error.strerror})"
    return DataError(f"{part.path}: {what}{missing}; free space or choose another folder, then ask again")


def _validator(response: requests.Response) -> str:
    """What `If-Range` may name: a strong ETag, else the modification date, else nothing."""
    tag = response.headers.get("ETag", "")
    chosen = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return chosen if chosen.isascii() and chosen.isprintable() and len(chosen) <= _LONGEST_TEXT else ""


def _other_version(response: requests.Response) -> bool:
    """Whether a piece belongs to another version than the one asked for (a server may ignore `If-Range`)."""
    asked = response.request.headers.get("If-Range", "")
    return bool(asked) and _validator(response) not in ("", asked)


def _retry_after(response: requests.Response) -> float:
    return float(_number(response.headers.get("Retry-After")) or 0)


def _number(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def _short(said: object) -> str:
    return " ".join(str(said).split())[:_LONGEST_TEXT]
