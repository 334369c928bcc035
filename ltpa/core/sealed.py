"""JSON files that hold the SHA-256 of their own content: written sealed, read typed, or refused in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest
from ltpa.core.schema import read_json

T = TypeVar("T")
SEAL = "sha256"


def write_sealed(path: Path, content: Mapping[str, Any], seal: str = SEAL) -> None:
    """Write plain JSON `content` and, as its last key `seal`, its SHA-256 to `path`."""
    text = json.dumps({**content, seal: digest(dict(content))}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_sealed(
    path: Path,
    model: type[T],
    error: type[LtpaError],
    *,
    version: int | None = None,
    missing: str,
    remedy: str,
    seal: str = SEAL,
) -> T:
    """The content of a sealed file as `model`, a pydantic model or a dataclass, without its seal and `format`.

    Args:
        version: what its key `format` must be; None where it has none.
        missing: what to say after the path where there is no such file.
        remedy: what to do about a file that is no good.

    Raises:
        LtpaError: of the kind `error`: the file is missing, truncated, edited, of another format, or not a `model`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
        expected = content.pop(seal, None) if isinstance(content, dict) else None
        found = digest(content)
    except FileNotFoundError as problem:
        raise error(f"{path}: {missing}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}: not readable ({problem}); {remedy}") from problem
    if expected is None:
        raise error(f"{path}: holds no seal (key {seal!r}); {remedy}")
    if found != expected:
        raise error(f"{path}: content does not match its SHA-256 (truncated or edited); {remedy}")
    if version is not None and content.pop("format", None) != version:
        raise error(f"{path}: written in another format; {remedy}")
    return read_json(model, content, str(path), error, f"; {remedy}")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
