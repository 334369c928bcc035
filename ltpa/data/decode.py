"""From an image file to pixels: RGB, cut to its box where wanted, squashed to a square.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at a fraction of the cost. This is done (option `reduced`) where at
least `MARGIN` times the wanted size is left. The result differs from that of full decoding like Pillow's own
`reducing_gap=3.0` does: 0.2 to 0.4 grey levels on average on photographs, rarely more than 3.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.source import Options

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 3

Box = Sequence[float]


def as_rgb(picture: "Image.Image", upright: bool = False) -> "Image.Image":
    """A picture of any kind in 8-bit RGB; transparency is passed over.

    Args:
        upright: turn it as its camera says (EXIF).

    Raises:
        ValueError: its pixels are 32-bit numbers, whose range nothing tells.
    """
    from PIL import Image, ImageOps

    if upright:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers; save it with 8 or 16 bits per channel")
    if picture.mode.startswith("I;16"):  # which Pillow would cut off at 255
        picture = Image.fromarray(((np.asarray(picture).astype(np.uint32) + 128) // 257).astype(np.uint8))
    return picture.convert("RGB")


def load_picture(path: Path) -> np.ndarray:
    """A user's own picture, upright and at its own size, (H, W, 3) uint8.

    Raises:
        DataError: it is missing or cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(as_rgb(picture, upright=True))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such picture") from error
    except Exception as error:  # Pillow raises whatever its decoders stumble over
        raise DataError(f"{path}: cannot be decoded ({error}); give a JPEG or PNG file") from error


def load_image(
    image: Path | bytes | np.ndarray, box: Box | None, size: int, options: Options
) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels (size, size, 3) uint8 of one image, and the width and height it is stored at.

    Args:
        image: a file, its bytes, or pixels (h, w) or (h, w, 3) uint8. The content, not the name, tells the format.
        box: x0, y0, x1, y1 of what to show, in stored pixels, clipped to the image; None shows all of it.

    Raises:
        ValueError: the box lies outside the image.
        Exception: whatever Pillow raises for content it cannot decode.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        return _render(Image.fromarray(image), box, size, options)
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
        return _render(picture, box, size, options)


def _render(picture: "Image.Image", box: Box | None, size: int, options: Options) -> tuple[np.ndarray, tuple[int, int]]:
    from PIL import Image

    filters = {
        "antialias": Image.Resampling.BILINEAR,
        "area": Image.Resampling.BOX,
        "nearest": Image.Resampling.NEAREST,
    }
    if options.upright:
        picture = as_rgb(picture, upright=True)
    width, height = picture.size
    left, top, right, bottom = (0, 0, width, height) if box is None else whole_pixels(box, width, height)
    scale = 1
    if options.reduced and options.resize != "nearest":
        scale = _reduction(picture, min(right - left, bottom - top) // (MARGIN * size))
    colours = as_rgb(picture)
    # What is cut off must not bleed in, so it is cut first. Reduced, the box may end inside a pixel.
    x, y = left // scale, top // scale
    outer = (x, y, -(-right // scale), -(-bottom // scale))
    if outer != (0, 0, *colours.size):
        colours = colours.crop(outer)
    shown = (left / scale - x, top / scale - y, right / scale - x, bottom / scale - y)
    return np.asarray(colours.resize((size, size), filters[options.resize], box=shown)), (width, height)


def _reduction(picture: "Image.Image", most: int) -> int:
    """Have a JPEG decoded at 1/8, 1/4 or 1/2, the smallest that `most` allows, and return the divisor."""
    if picture.format != "JPEG":
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


def load_mask(path: Path, box: Box | None, size: int | None, of: tuple[int, int]) -> np.ndarray:
    """Mask (size, size) uint8 of an image file: 1 where the nearest stored pixel is non-zero in any channel.

    Without a `size` it keeps the height and width it is stored at, or those of the box.

    Args:
        of: width and height that the image of this mask is stored at.

    Raises:
        DataError: the mask has another size.
        Exception: as `load_image`.
    """
    from PIL import Image

    with Image.open(path) as picture:
        stored = np.asarray(picture.convert("RGBA" if picture.mode in ("P", "PA") else picture.mode))
    if stored.shape[1::-1] != of:
        sizes = " and ".join("{} × {}".format(*size) for size in (stored.shape[1::-1], of))
        raise DataError(f"{path}: mask and image differ in size ({sizes}); a mask must have its image's")
    colours = stored[..., :3] if stored.ndim == 3 else stored[..., None]
    marked = Image.fromarray((colours > 0).any(axis=2).astype(np.uint8))
    shown = (0, 0, *marked.size) if box is None else whole_pixels(box, *marked.size)
    wanted = (shown[2] - shown[0], shown[3] - shown[1]) if size is None else (size, size)
    return np.asarray(marked.resize(wanted, Image.Resampling.NEAREST, box=shown))
