"""What a reader hands to the decoder: for each split the images as they lie on disk, and what is known about each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """N images of one split, in the official order.

    Attributes:
        images: N files (paths, or their bytes), or pixels as (N, h, w) or (N, h, w, 3) uint8.
        labels: (N,) indices into the dataset's classes.
        ids: N texts that say where each image comes from.
        boxes: N times x0, y0, x1, y1 in pixels of the stored image, last edges exclusive; may stick out of it.
        masks: N mask images (`ltpa.data.masks.marks`).
        parts: N boxes of the part that tells classes apart, laid out like `boxes`; not numbers where it is hidden.
        passed_over: names of files and folders among the images that are none of them.
    """

    images: Sequence[Path] | Sequence[bytes] | np.ndarray
    labels: Sequence[int] | np.ndarray
    ids: Sequence[str]
    boxes: Sequence[Sequence[float]] | None = None
    masks: Sequence[Path] | None = None
    parts: Sequence[Sequence[float]] | None = None
    passed_over: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int]) -> Self:
        """The listing reduced to the given rows."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "passed_over"]
        values = {name: getattr(self, name) for name in fields}
        return dataclasses.replace(
            self, **{name: [value[row] for row in rows] for name, value in values.items() if value is not None}
        )
