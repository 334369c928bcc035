"""Where the parts of the birds of CUB-200-2011 are."""

import math
from pathlib import Path

from ltpa.core.errors import DataError

HEAD_PARTS = (2, 5, 6, 7, 10, 11, 15)  # beak, crown, forehead, left eye, nape, right eye, throat


def heads_in(path: Path, images: dict[str, str]) -> dict[str, list[float]]:
    """Box around the pixels of the visible head parts of each image, not numbers where none is visible.

    Raises:
        DataError: there is no such file, or it is not about these images.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; extract the dataset's archives anew, or set option parts to none")
    points: dict[str, list[tuple[float, float]]] = {number: [] for number in images}
    try:
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            number, part, x, y, visible = line.split()
            if visible == "1" and int(part) in HEAD_PARTS:
                points[number].append((float(x), float(y)))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: not a list of parts of these images ({error}); extract it anew") from error
    return {number: _around(places) for number, places in points.items()}


def _around(places: list[tuple[float, float]]) -> list[float]:
    if not places:
        return [math.nan] * 4
    xs, ys = zip(*places, strict=True)
    return [min(xs) - 0.5, min(ys) - 0.5, max(xs) + 0.5, max(ys) + 0.5]
