"""From an image file to pixels: RGB, cut to its box where wanted, squashed to a square.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at a fraction of the cost. This is done (option `reduced`) where at
least `MARGIN` times the wanted size is left. The result differs from that of full decoding like Pillow's own
`reducing_gap=3.0` does: 0.2 to 0.4 grey levels on average on photographs, rarely more than 3.
"""

import contextlib
import io
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ltpa.core.errors import DataError, MemoryFullError
from ltpa.data.masks import marks
from ltpa.data.pictures import suffixes
from ltpa.data.source import Options

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 3
MAX_PIXELS = 100_000_000
"""Width times height of the largest image that is decoded: 400 MB in Pillow's memory, and twice that for a moment."""

_ORIENTATION = 0x0112  # the EXIF tag
_STRIP = 256  # rows of a 16-bit image that are converted at a time

Box = Sequence[float]


class Stored(NamedTuple):
    """An image as its file has it: width and height (of the turned image where it is turned), EXIF orientation."""

    width: int
    height: int
    orientation: int = 1


@contextlib.contextmanager
def opened(image: Path | bytes) -> "Iterator[Image.Image]":
    """Open an image file or its bytes without decoding it. The content, not the name, decides the format.

    Raises:
        DataError: the path is missing, a link that leads nowhere, or no regular file (a pipe would block).
        MemoryFullError: it has more than `MAX_PIXELS` pixels.
        Exception: whatever Pillow raises for content that is no image.
    """
    from PIL import Image

    if isinstance(image, Path):
        _check_regular(image)
    # No others: EPS, for one, starts an interpreter. GIF stands in some files called .jpg.
    formats = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", *(["AVIF"] if ".avif" in suffixes() else [])]
    Image.MAX_IMAGE_PIXELS = None  # in place of a warning in Pillow's words: our own limit, below
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=formats) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            where = f"{image}: " if isinstance(image, Path) else ""
            raise MemoryFullError(
                f"{where}{width:,} x {height:,} pixels, and images of up to {MAX_PIXELS:,} are decoded; make it smaller"
            )
        yield picture


def _check_regular(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{path}: a link to {path.readlink()}, which does not exist; mend or remove the link"
            ) from error
        raise DataError(f"{path}: missing; correct its name, or get it anew") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); give an image file") from error
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe, socket or device"
        raise DataError(f"{path}: {what}, not an image file; give an image file")


def as_rgb(picture: "Image.Image") -> "Image.Image":
    """A picture of any kind in 8-bit RGB; transparency is passed over.

    Raises:
        ValueError: its pixels are 32-bit numbers, whose range is not known.
    """
    from PIL import Image

    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers; save it with 8 or 16 bits per channel")
    if picture.mode.startswith("I;16"):  # which Pillow would cut off at 255
        grey = np.empty((picture.height, picture.width), np.uint8)
        for top in range(0, picture.height, _STRIP):
            rows = picture.crop((0, top, picture.width, min(top + _STRIP, picture.height)))
            grey[top : top + _STRIP] = (np.asarray(rows).astype(np.uint32) + 128) // 257
        picture = Image.fromarray(grey)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _orientation(picture: "Image.Image") -> int:
    """How the picture is to be turned (EXIF): 1 as it is, 2 to 4 keep width and height, 5 to 8 exchange them."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises errors of many kinds for a damaged EXIF block; the pixels may be whole
        return 1
    return value if value in range(1, 9) else 1


def _turn(picture: "Image.Image", orientation: int) -> "Image.Image":
    from PIL.Image import Transpose

    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
             5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
             8: Transpose.ROTATE_90}  # fmt: skip
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def load_picture(path: Path, longest: int) -> np.ndarray:
    """A user's own picture to look at, upright, (H, W, 3) uint8, shrunk to at most `longest` pixels a side.

    Raises:
        DataError: it is missing or cannot be decoded.
        MemoryFullError: it has more than `MAX_PIXELS` pixels.
    """
    from PIL import Image

    with _decoding(path), opened(path) as picture:
        orientation = _orientation(picture)
        factor = min(1.0, longest / max(picture.size))
        size = [max(1, round(side * factor)) for side in picture.size]
        _reduction(picture, max(picture.size) // (MARGIN * longest))
        colours = as_rgb(picture)
        shrunk = colours if list(colours.size) == size else colours.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(_turn(shrunk, orientation))


def load_input(path: Path, size: int) -> np.ndarray:
    """A user's own picture as a network sees it: upright, squashed to (size, size, 3) uint8, as `evaluate` has it.

    Raises:
        DataError, MemoryFullError: as `load_picture`.
    """
    with _decoding(path):
        return load_image(path, None, size, Options(upright=True))[0]


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Name the picture in the errors that Pillow raises within the block."""
    try:
        yield
    except (DataError, MemoryFullError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise DataError(f"{path}: cannot be decoded ({error}); give an image as {', '.join(suffixes())}") from error


def load_image(
    image: Path | bytes | np.ndarray, box: Box | None, size: int, options: Options
) -> tuple[np.ndarray, Stored]:
    """Pixels (size, size, 3) uint8 of one image, and how it is stored.

    Args:
        image: a file, its bytes, or pixels (h, w) or (h, w, 3) uint8. The content, not the name, decides the format.
        box: x0, y0, x1, y1 of what to show, in stored pixels, clipped to the image; None shows all of it.

    Raises:
        ValueError: the box lies outside the image.
        DataError, MemoryFullError, Exception: as `opened`.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        return _render(Image.fromarray(image), box, size, options)
    with opened(image) as picture:
        return _render(picture, box, size, options)


def _render(picture: "Image.Image", box: Box | None, size: int, options: Options) -> tuple[np.ndarray, Stored]:
    from PIL import Image

    filters = {
        "antialias": Image.Resampling.BILINEAR,
        "area": Image.Resampling.BOX,
        "nearest": Image.Resampling.NEAREST,
    }
    orientation = _orientation(picture)
    turned = options.upright and orientation != 1
    width, height = picture.size[::-1] if turned and orientation >= 5 else picture.size
    left, top, right, bottom = (0, 0, width, height) if box is None else whole_pixels(box, width, height)
    scale = 1
    if options.reduced and options.resize != "nearest":
        scale = _reduction(picture, min(right - left, bottom - top) // (MARGIN * size))
    colours = as_rgb(picture)
    if turned:
        colours = _turn(colours, orientation)
    # What is cut off must not bleed in, so it is cut first. Reduced, the box may end inside a pixel.
    x, y = left // scale, top // scale
    outer = (x, y, -(-right // scale), -(-bottom // scale))
    if outer != (0, 0, *colours.size):
        colours = colours.crop(outer)
    area = (left / scale - x, top / scale - y, right / scale - x, bottom / scale - y)
    pixels = np.asarray(colours.resize((size, size), filters[options.resize], box=area))
    return pixels, Stored(width, height, orientation)


def _reduction(picture: "Image.Image", most: int) -> int:
    """Have a JPEG decoded at 1/8, 1/4 or 1/2, the smallest that `most` allows, and return the divisor."""
    if picture.format not in ("JPEG", "MPO"):  # MPO: several JPEG in one file, as phones write them
        return 1
    for scale in (8, 4, 2):
        if scale <= most:
            picture.draft(None, (picture.width // scale, picture.height // scale))
            return scale
    return 1


def whole_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """A box widened to whole pixels and clipped to an image.

    Raises:
        ValueError: nothing of it lies inside.
    """
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if left >= right or top >= bottom:
        raise ValueError(f"its box {list(box)} lies outside its {width} x {height} pixels")
    return left, top, right, bottom


def load_mask(path: Path, box: Box | None, size: int | None, of: Stored) -> np.ndarray:
    """Mask (size, size) uint8 of an image file, of its nearest pixels: `OBJECT`, `VOID` or 0 (`ltpa.data.masks`).

    Without a `size` it keeps the height and width it is stored at, or those of the box.

    Args:
        of: the image of this mask.

    Raises:
        DataError: the mask has another size, or it cannot be opened.
        MemoryFullError, Exception: as `opened`.
    """
    from PIL import Image

    with opened(path) as picture:
        if picture.size != of[:2]:
            sizes = " and ".join("{} × {}".format(*size) for size in (picture.size, of[:2]))
            turned = f"; the image's EXIF orientation, {of.orientation}, turns it" if of.orientation != 1 else ""
            raise DataError(f"{path}: mask and image differ in size ({sizes}){turned}; a mask must have its image's")
        marked = Image.fromarray(marks(picture))
    area = (0, 0, *marked.size) if box is None else whole_pixels(box, *marked.size)
    wanted = (area[2] - area[0], area[3] - area[1]) if size is None else (size, size)
    return np.asarray(marked.resize(wanted, Image.Resampling.NEAREST, box=area))
