"""Text from outside (names of files, classes and networks, answers of servers) made safe: one function per output."""

import html
import re
import unicodedata

# Control characters, halves of surrogate pairs (a name that is not UTF-8), line and paragraph separators.
_HARMFUL = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKDOWN = re.compile(r"[\\`*_|<>\[\]&~$]")
# What makes a heading, a list or a rule of a line that begins with it.
_MARKDOWN_START = re.compile(r"(?:#{1,6}|[-+=]+|\d{1,9}(?=[.)]))(?=[.)]?(?: |$))")
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # a row may not begin with a bracket: LaTeX takes it for the option of the line break before it
    "]": "{]}",
    "*": "{*}",  # the same holds for a star
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl is not in LaTeX's default encoding, OT1
    "\u00a0": "~",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "²": r"$^2$",
    "∞": r"$_\infty$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
_LATEX_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}
_LIGATURES = re.compile(r"[-'`!?](?=[-'`])")  # two such signs in a row would become a third one


def printable(text: object) -> str:
    """`text` on one line, with nothing in it that a terminal obeys.

    Control characters, line breaks, marks that turn the direction of writing, and bytes that are not UTF-8 are written
    as Python writes them, such as `\\x1b` and `\\n`. All other functions of this module do this first.
    """
    return "".join(
        repr(letter)[1:-1] if letter in _DIRECTIONS or unicodedata.category(letter) in _HARMFUL else letter
        for letter in str(text)
    )


_UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def duration_text(seconds: float) -> str:
    """A duration in the unit that people would name it in: `2.5 days`, `3.4 h`, `12 min`, `40 s`.

    A unit is used from two of it on, so that nothing is lost by rounding.
    """
    unit, length = next((each for each in _UNITS if seconds >= 2 * each[1]), _UNITS[-1])
    value = seconds / length
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def shortened(text: object, length: int = 200) -> str:
    """`text` as `printable` writes it, of which at most `length` characters are shown."""
    shown = printable(text)
    return shown if len(shown) <= length else f"{shown[:length]} ..."


def markdown_text(text: object) -> str:
    """`text` as Markdown that reads as this text: in a paragraph, a heading, an item of a list or a cell of a table."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", printable(text).strip())
    start = _MARKDOWN_START.match(escaped)
    if start is None:
        return escaped
    last = start.end() if start.group()[0].isdigit() else 0
    return f"{escaped[:last]}\\{escaped[last:]}"


def html_text(text: object) -> str:
    """`text` for the body of an HTML page or a quoted attribute."""
    return html.escape(printable(text))


def latex_text(text: object) -> str:
    """`text` for LaTeX: nothing in it is a command, and common signs become mathematics.

    A character that LaTeX has no sign for in its default encoding is written by its number, as in `{[}U+4E2D{]}`.
    """
    separated = _LIGATURES.sub("\\g<0>\0", unicodedata.normalize("NFC", printable(text)))
    return "".join("{}" if letter == "\0" else _latex_letter(letter) for letter in separated)


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if len(accents) == 1 and accents[0] in _LATEX_ACCENTS and base.isascii() and base.isalpha():
        dotless = {"i": r"\i", "j": r"\j"}.get(base, base) if accents[0] != "\u0327" else base
        return f"{{\\{_LATEX_ACCENTS[accents[0]]}{{{dotless}}}}}"
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def csv_value(value: object) -> object:
    """`value` for a CSV file: numbers and None as they are; a text on one line that no spreadsheet computes.

    A text that begins like a formula gets an apostrophe before it.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def figure_text(text: object) -> str:
    """`text` for a title, a label or a caption of matplotlib.

    Matplotlib sets what stands between dollars as mathematics, and leaves a label that begins with `_` out of legends.
    """
    escaped = printable(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
