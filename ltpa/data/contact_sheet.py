"""A picture of a prepared dataset: a few images of every class, at one size, so that a person can judge them."""

import math
from pathlib import Path

import numpy as np

from ltpa.core.files import atomic_path
from ltpa.core.text import printable
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.masks import squashed

_PER_CLASS = 12
_SIDE = 64  # pixels an image is shown at
_LABEL = 160  # least pixels for the class name


def contact_sheet(dataset: PreparedDataset, path: Path, masks: bool = False) -> None:
    """Write a PNG with one row per class: its name, then its first images of all splits.

    With `masks`, the outside of the target mask is darkened.
    """
    from PIL import Image, ImageDraw

    gap = 2
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    names = [printable(name) for name in dataset.classes]
    label = max(_LABEL, *(math.ceil(ruler.textlength(name)) + 8 for name in names))
    width, height = label + _PER_CLASS * (_SIDE + gap), len(names) * (_SIDE + gap)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        draw.text((4, row * (_SIDE + gap) + _SIDE // 2 - 6), name, fill="black")
        for column, (split, index) in enumerate(_first(dataset, row)):
            picture = np.asarray(split.images[index])
            if masks and split.masks is not None:
                inside = squashed([split.masks[index]], len(picture))[0]
                picture = np.where(inside[..., None] == 1, picture, picture // 4)
            tile = Image.fromarray(picture).resize(
                (_SIDE, _SIDE), Image.Resampling.NEAREST if len(picture) <= _SIDE else Image.Resampling.BOX
            )
            sheet.paste(tile, (label + column * (_SIDE + gap), row * (_SIDE + gap)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _first(dataset: PreparedDataset, label: int) -> list[tuple[Split, int]]:
    """The first images of a class, with the split each is in. The arrays may be larger than memory."""
    images = [
        (split, int(index))
        for split in dataset.splits.values()
        for index in np.flatnonzero(split.labels == label)[:_PER_CLASS]
    ]
    return images[:_PER_CLASS]
