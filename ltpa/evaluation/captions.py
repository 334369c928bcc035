"""What captions and the maps of their words are worth: matches, slots, BLEU, and attention on what a word names."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ltpa.data import grammar

Words = Sequence[str]
SLOTS = ("size", "tone", "digit", "relation")


def bleu(said: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4, brevity: bool = True) -> float:
    """Corpus BLEU-`order` in percent (Papineni et al. 2002): geometric mean of the clipped n-gram precisions.

    Counts are summed over the corpus before they are divided; nothing is smoothed, so that a precision of zero gives 0.
    The brevity penalty takes for each caption the reference whose length is closest, the shorter of two as close.

    Args:
        said: the captions.
        references: for each caption its references, at least one.
        brevity: whether there is a brevity penalty; Xu et al. 2015 have none.
    """
    hits, there, length, wanted = [0] * order, [0] * order, 0, 0
    for words, others in zip(said, references, strict=True):
        length += len(words)
        wanted += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, order + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for other in others:
                most |= _ngrams(other, n)
            own = _ngrams(words, n)
            hits[n - 1] += (own & most).total()
            there[n - 1] += own.total()
    if 0 in hits:
        return 0.0
    score = math.exp(sum(math.log(hit / all_) for hit, all_ in zip(hits, there, strict=True)) / order)
    return 100 * score * (min(1.0, math.exp(1 - wanted / length)) if brevity else 1.0)


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def without_end(words: Words) -> list[str]:
    """A caption as it is read aloud."""
    return [word for word in words if word != grammar.END]


def slots_right(said: Words, true: Words) -> dict[str, list[bool]]:
    """For each slot whether a caption fills it rightly: of both objects, the relation once.

    A caption that the grammar does not have is wrong in all of them.
    """
    found, scene = grammar.parse(said), grammar.parse(true)
    assert scene is not None
    if found is None:
        return {slot: [False] * (1 if slot == "relation" else 2) for slot in SLOTS}
    pairs = ((found.first, scene.first), (found.second, scene.second))
    right = {slot: [getattr(own, slot) == getattr(other, slot) for own, other in pairs] for slot in SLOTS[:3]}
    return {**right, "relation": [found.relation == scene.relation]}


def cell_shares(boxes: np.ndarray, side: int, size: int) -> np.ndarray:
    """For boxes (..., 4) of images of `size` pixels how much of each of side * side cells lies in them: (..., L)."""
    edges = np.arange(side + 1) * (size / side)
    low, high = edges[:-1], edges[1:]
    columns, rows = (
        np.clip(np.minimum(high, boxes[..., end, None]) - np.maximum(low, boxes[..., start, None]), 0, None)
        for start, end in ((0, 2), (1, 3))
    )
    shares = rows[..., :, None] * columns[..., None, :] / (size / side) ** 2
    return shares.reshape(*boxes.shape[:-1], side * side)


def centres_in(boxes: np.ndarray, side: int, size: int) -> np.ndarray:
    """Which cells' centres lie in boxes (..., 4): (..., L) bool."""
    centre = (np.arange(side) + 0.5) * (size / side)
    columns, rows = (
        (centre >= boxes[..., start, None]) & (centre < boxes[..., end, None]) for start, end in ((0, 2), (1, 3))
    )
    return (rows[..., :, None] & columns[..., None, :]).reshape(*boxes.shape[:-1], side * side)


class WordMaps:
    """The maps of the words that have an object, in captions of two objects.

    Args:
        maps: (N, T, L), each over the cells of its image.
        captions, referents: (N, T) as in `ltpa.data.grammar`.
        objects: (N, 2, 4) boxes in pixels.
        side, size: cells and pixels along an image's side.

    Attributes:
        kind, object: (M,) of each word with an object: `size`, `tone` or `digit`, and 0 or 1.
        image: (M,) its image.
    """

    def __init__(
        self, maps: np.ndarray, captions: np.ndarray, referents: np.ndarray, objects: np.ndarray, side: int, size: int
    ) -> None:
        kinds = np.array([grammar.kind(word) for word in grammar.WORDS])[np.maximum(captions, 0)]
        chosen = (captions >= 0) & (referents >= 0) & np.isin(kinds, grammar.CONTENT)
        self.image, at = np.nonzero(chosen)
        self.kind, self.object = kinds[self.image, at], referents[self.image, at].astype(np.int64)
        self._maps, self._objects, self._side, self._size = maps[self.image, at], np.asarray(objects), side, size

    def mass(self, other: bool = False) -> np.ndarray:
        """(M,) share of a map in its object's box, or in the other object's."""
        shares = cell_shares(self._boxes(other), self._side, self._size)
        found: np.ndarray = (self._maps * shares).sum(1)
        return found

    def right(self) -> np.ndarray:
        """(M,) 1 where the own object's box has more of the map than the other's, 0.5 where it has as much, else 0."""
        own, other = self.mass(), self.mass(other=True)
        return (own > other) + 0.5 * (own == other)

    def pointing(self, other: bool = False, shift: int = 0) -> np.ndarray:
        """(M,) whether the centre of the cell with the largest weight lies in the box; of cells as large, their share.

        `shift` takes the boxes from so many images on: what place alone is worth.
        """
        peaks = self._maps == self._maps.max(1, keepdims=True)
        inside = centres_in(self._boxes(other, shift), self._side, self._size)
        return (peaks & inside).sum(1) / peaks.sum(1)

    def chance(self) -> np.ndarray:
        """(M,) the share of cells whose centre lies in the box."""
        return centres_in(self._boxes(False), self._side, self._size).mean(1)

    def entropy_bits(self) -> np.ndarray:
        """(M,) entropy of the maps."""
        found: np.ndarray = -(self._maps * np.log2(np.maximum(self._maps, 1e-300))).sum(1)
        return found

    def _boxes(self, other: bool, shift: int = 0) -> np.ndarray:
        image = (self.image + shift) % len(self._objects)
        boxes: np.ndarray = self._objects[image, 1 - self.object if other else self.object]
        return boxes
