"""Text from outside (names of files and classes, answers of servers) made fit for a terminal."""

import unicodedata

# Control characters, halves of surrogate pairs (a name that is not UTF-8), line and paragraph separators.
_HARMFUL = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object) -> str:
    """`text` on one line, with nothing in it that a terminal obeys.

    Control characters, line breaks, marks that turn the direction of writing, and bytes that are not UTF-8 are written
    as Python writes them, such as `\\x1b` and `\\n`.
    """
    return "".join(
        repr(letter)[1:-1] if letter in _DIRECTIONS or unicodedata.category(letter) in _HARMFUL else letter
        for letter in str(text)
    )


def shortened(text: object, length: int = 200) -> str:
    """`text` as `printable` writes it, of which at most `length` characters are shown."""
    shown = printable(text)
    return shown if len(shown) <= length else f"{shown[:length]} ..."
