"""The real images behind the embedded datasets, divided so that nothing leaks from training to testing.

The sources ship with scikit-learn: 1,797 handwritten digits (8 x 8, `load_digits`) and two photographs (427 x 640,
`china.jpg` and `flower.jpg`). A *pool* is a set of digits and of photograph rectangles. The pool `train` shares no
digit and no pixel with any other, and its rectangles lie at least `GAP` pixels from theirs. `test-a` and `test-b` are
parts of `test`, equally disjoint. A pool can be cut into groups that share no digit and no pixel either, so that
cross-validation never tests on what it was fitted to.
"""

import dataclasses
import functools
import itertools

import numpy as np

from ltpa.core.errors import ConfigError

POOL_SEED = 20180430
GAP = 20
TRAIN_SHARE = 0.7
UPSAMPLED = 32  # side of a stored glyph; its 8 x 8 original is interpolated once
MAX_GROUPS = 5  # more would leave strips without enough texture
MIN_STRIP = 32  # pixels; least width of a strip of a photograph, the side of the largest image


@dataclasses.dataclass(frozen=True)
class Region:
    """A rectangle of a photograph, in pixels; right and bottom exclusive."""

    photo: str
    left: int
    top: int
    right: int
    bottom: int


@dataclasses.dataclass(frozen=True)
class Pool:
    """Digits (indices into `load_digits`), texture regions and scenes that images of one split may be made of."""

    name: str
    digits: np.ndarray
    regions: tuple[Region, ...]
    scenes: tuple[Region, ...] = ()

    def groups(self, count: int) -> list["Pool"]:
        """The pool cut into `count` pools that share no digit and no pixel; each has all digits and all regions."""
        targets = digits()[1][self.digits]
        rng = np.random.default_rng(POOL_SEED)
        parts: list[list[np.ndarray]] = [[] for _ in range(count)]
        for digit in range(10):
            members = rng.permutation(self.digits[targets == digit])
            for part, chosen in zip(parts, np.array_split(members, count), strict=True):
                part.append(chosen)
        return [
            Pool(
                f"{self.name}, group {index}",
                np.sort(np.concatenate(part)),
                tuple(strips(region, count)[index] for region in self.regions),
                tuple(strips(region, count)[index] for region in self.scenes),
            )
            for index, part in enumerate(parts)
        ]


def strips(region: Region, count: int) -> list[Region]:
    """`count` strips of a region: side by side where they are then `MIN_STRIP` wide, else one below the other."""
    if region.right - region.left >= count * MIN_STRIP:
        edges = np.linspace(region.left, region.right, count + 1).astype(int).tolist()
        return [dataclasses.replace(region, left=a, right=b) for a, b in itertools.pairwise(edges)]
    edges = np.linspace(region.top, region.bottom, count + 1).astype(int).tolist()
    return [dataclasses.replace(region, top=a, bottom=b) for a, b in itertools.pairwise(edges)]


_REGIONS = {
    "train": (Region("china", 0, 50, 204, 427), Region("flower", 0, 0, 295, 427)),
    "test": (Region("china", 224, 0, 640, 427), Region("flower", 315, 0, 640, 427)),
    "test-a": (Region("china", 224, 0, 640, 260), Region("flower", 315, 0, 640, 215)),
    "test-b": (Region("china", 224, 280, 640, 427), Region("flower", 315, 235, 640, 427)),
}

SCENES = {
    "pagoda": Region("china", 224, 90, 330, 390),
    "sky": Region("china", 340, 10, 640, 130),
    "lake": Region("china", 355, 215, 540, 290),
    "bush": Region("china", 360, 290, 540, 427),
    "petals": Region("flower", 315, 110, 425, 330),
    "leaves": Region("flower", 455, 0, 640, 427),
}
"""Regions of the pool `test` that differ in what they show; the classes of the scene dataset."""


@functools.cache
def photograph(name: str) -> np.ndarray:
    """One of the sample photographs, (427, 640, 3) uint8 RGB. `name` is `china` or `flower`."""
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg")


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All glyphs and which digit each shows.

    Returns:
        Stroke coverage (1797, 32, 32) float32 in 0-1, interpolated and sharpened; digits (1797,) int64.
    """
    from scipy import ndimage
    from sklearn.datasets import load_digits

    data = load_digits()
    factor = UPSAMPLED / 8
    smooth = ndimage.zoom(data.images / 16.0, (1, factor, factor), order=3, mode="grid-constant", grid_mode=True)
    return np.clip((smooth - 0.2) / 0.45, 0, 1).astype(np.float32), data.target.astype(np.int64)


@functools.cache
def pool(name: str) -> Pool:
    """The pool called `name`.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in _REGIONS:
        raise ConfigError(f"unknown pool {name!r}; choose one of {', '.join(_REGIONS)}")
    return Pool(name, _pool_digits()[name], _REGIONS[name], tuple(SCENES.values()) if name == "test" else ())


@functools.cache
def _pool_digits() -> dict[str, np.ndarray]:
    """Indices per pool: each digit class is shuffled once and cut, so that every pool has all classes."""
    targets = digits()[1]
    rng = np.random.default_rng(POOL_SEED)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test-a": [], "test-b": []}
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(targets == digit))
        cut = round(TRAIN_SHARE * len(members))
        middle = (cut + len(members)) // 2
        for name, part in zip(parts, np.split(members, [cut, middle]), strict=True):
            parts[name].append(part)
    chosen = {name: np.sort(np.concatenate(arrays)) for name, arrays in parts.items()}
    return {**chosen, "test": np.sort(np.concatenate([chosen["test-a"], chosen["test-b"]]))}
