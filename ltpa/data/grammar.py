"""The language of the captioned scenes: every word has a kind, and every noun phrase an object.

    caption = phrase relation phrase <end>
    phrase  = a (small|large) (dark|light) (zero|one|...|nine)
    relation = above | left of

The upper or left object is named first, so that a scene has exactly one caption and the object of a word is known
before the word is said.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from ltpa.core.errors import DataError

SIZES = ("small", "large")
TONES = ("dark", "light")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = ("above", "left of")
END = "<end>"
WORDS = ("a", *SIZES, *TONES, *DIGITS, "above", "left", "of", END)
LONGEST = 11  # words of a caption, the end included
PADDING = -1  # in place of a word, behind the end
CONTENT = ("size", "tone", "digit")  # the kinds of word whose object can be seen
_KIND = {
    "a": "article",
    **dict.fromkeys(SIZES, "size"),
    **dict.fromkeys(TONES, "tone"),
    **dict.fromkeys(DIGITS, "digit"),
    **dict.fromkeys(("above", "left", "of"), "relation"),
    END: "end",
}


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object, each property by its word."""

    size: str
    tone: str
    digit: str

    @property
    def phrase(self) -> list[str]:
        """The words for it."""
        return ["a", self.size, self.tone, self.digit]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two objects, the upper or left one first, and their relation."""

    first: Thing
    relation: str
    second: Thing

    def words(self) -> list[str]:
        """Its caption, with the end."""
        return [*self.first.phrase, *self.relation.split(), *self.second.phrase, END]


def scenes() -> Iterator[Scene]:
    """Every scene that the grammar can speak of: 3,200."""
    things = [Thing(*words) for words in itertools.product(SIZES, TONES, DIGITS)]
    return (Scene(*parts) for parts in itertools.product(things, RELATIONS, things))


def parse(words: Sequence[str]) -> Scene | None:
    """The scene that a caption speaks of; None for words that are no caption."""
    relation = " ".join(words[4:-5])
    if len(words) < 10 or relation not in RELATIONS:
        return None
    scene = Scene(Thing(*words[1:4]), relation, Thing(*words[-4:-1]))
    things = (scene.first, scene.second)
    known = all(t.size in SIZES and t.tone in TONES and t.digit in DIGITS for t in things)
    return scene if known and scene.words() == list(words) else None


def kind(word: str) -> str:
    """What a word says: `article`, `size`, `tone`, `digit`, `relation` or `end`."""
    return _KIND[word]


def referents(words: Sequence[str]) -> list[int]:
    """For each word of a caption the object that it speaks of, 0 or 1; -1 for the relation and the end."""
    second = len(words) - 5
    return [-1 if kind(word) in ("relation", "end") else int(at >= second) for at, word in enumerate(words)]


def encode(captions: Sequence[Sequence[str]], length: int = LONGEST) -> np.ndarray:
    """Captions as indices into `WORDS`, (N, length) int16 with `PADDING` behind the end.

    Raises:
        DataError: a caption has a word that the vocabulary lacks, no word, no end or more than one, or is too long.
    """
    number = {word: index for index, word in enumerate(WORDS)}
    rows = np.full((len(captions), length), PADDING, np.int16)
    for row, words in zip(rows, captions, strict=True):
        text = " ".join(words)
        if unknown := [word for word in words if word not in number]:
            raise DataError(f"caption {text!r}: the vocabulary lacks {unknown[0]!r}; it has {' '.join(WORDS)}")
        if words.count(END) != 1 or words[-1] != END:
            raise DataError(f"caption {text!r}: must end with {END}, which stands nowhere else")
        if len(words) > length:
            raise DataError(f"caption {text!r}: {len(words)} words with its end; at most {length} are taken")
        row[: len(words)] = [number[word] for word in words]
    return rows


def decode(row: Sequence[int], words: Sequence[str] = WORDS) -> list[str]:
    """The words of a row of indices, up to its padding."""
    return [words[index] for index in row if index != PADDING]
