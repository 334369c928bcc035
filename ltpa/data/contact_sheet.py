"""A picture of a prepared dataset: a few images of every class, enlarged, so that a person can judge them."""

from pathlib import Path

import numpy as np

from ltpa.core.files import atomic_path
from ltpa.data.arrays import PreparedDataset

_PER_CLASS = 12
_SIDE = 64  # pixels an image is shown at
_LABEL = 160  # pixels for the class name


def contact_sheet(dataset: PreparedDataset, path: Path, masks: bool = False) -> None:
    """Write a PNG with one row per class: its name, then its first images of all splits.

    With `masks`, the outside of the target mask is darkened.
    """
    from PIL import Image, ImageDraw

    pooled = dataset.pooled()
    gap = 2
    width, height = _LABEL + _PER_CLASS * (_SIDE + gap), len(dataset.classes) * (_SIDE + gap)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(dataset.classes):
        draw.text((4, row * (_SIDE + gap) + _SIDE // 2 - 6), name, fill="black")
        for column, index in enumerate(np.flatnonzero(pooled.labels == row)[:_PER_CLASS]):
            picture = np.asarray(pooled.images[index])
            if masks and pooled.masks is not None:
                picture = np.where(pooled.masks[index][..., None] == 1, picture, picture // 4)
            tile = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(tile, (_LABEL + column * (_SIDE + gap), row * (_SIDE + gap)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
