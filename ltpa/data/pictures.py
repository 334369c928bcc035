"""Which files are images and which are masks: the one rule for `prepare`, `evaluate` and `attend`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.core.files import is_hidden
from ltpa.core.text import printable

MASK_SUFFIX = ".png"
_NAMED = 5  # entries that a note names; the others are counted


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The endings of image names, in small letters; AVIF where this Pillow reads it."""
    from PIL import features

    avif = (".avif",) if features.check("avif") else ()
    return (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", *avif)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image. Hidden ones (`._a.jpg`) never are."""
    return not is_hidden(name) and name.lower().endswith(suffixes())


def images_in(folder: Path, lower_case_only: bool = False) -> tuple[list[str], list[str]]:
    """Names of the images directly in a folder, in plain character order, and of all else there, folders with a slash.

    A link that leads nowhere counts by its name, so that decoding stops at it.

    Args:
        lower_case_only: take `*.jpg` alone, as a case-sensitive shell pattern does.
    """
    images: list[str] = []
    others: list[str] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name, is_folder = entry.name, entry.is_dir()
        wanted = is_image(name) and (not lower_case_only or name.endswith(".jpg"))
        (images if wanted and not is_folder else others).append(f"{name}/" if is_folder else name)
    return images, others


def mask_of(folder: Path, name: str) -> Path:
    """The mask of image `name` (a path below its own folder): the PNG of the same stem at the same place in `folder`.

    Raises:
        DataError: there is none.
    """
    path = (folder / name).with_suffix(MASK_SUFFIX)
    if not path.is_file():
        raise DataError(f"{path}: no mask for image {name}; add it, or take the image out")
    return path


def passed_over_note(names: Sequence[str]) -> str:
    """One line that counts files and folders that were passed over, and names the first few of them."""
    first = ", ".join(printable(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} other files passed over: {first}{more}"
