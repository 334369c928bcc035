"""LaTeX text and booktabs tables."""

from collections.abc import Sequence

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # a row may not begin with a bracket: LaTeX takes it for the option of the line break before it
    "]": "{]}",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
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
}
_TABLE = str.maketrans(_SPECIAL)


def escape(text: str) -> str:
    """`text` with every character that LaTeX would interpret replaced; common signs become mathematics."""
    return text.translate(_TABLE)


def environment(
    caption: str,
    label: str,
    lead: Sequence[str],
    columns: Sequence[str],
    fields: Sequence[str],
    lines: Sequence[tuple[str, Sequence[str]]],
) -> str:
    """A `table` environment with two header rows: column titles spanning their fields, then the fields.

    `lines` are (group title, []) or ("", texts), where `texts` has one text per column of the tabular.
    """
    width = len(fields)
    total = len(lead) + width * len(columns)
    first = len(lead) + 1
    spans = [f"\\multicolumn{{{width}}}{{c}}{{{escape(title)}}}" for title in columns]
    rules = [f"\\cmidrule(lr){{{first + i * width}-{first + (i + 1) * width - 1}}}" for i in range(len(columns))]
    body = []
    for group, texts in lines:
        if group:
            body.append(f"\\multicolumn{{{total}}}{{l}}{{\\emph{{{escape(group)}}}}} \\\\")
        else:
            body.append(" & ".join(map(escape, texts)) + " \\\\")
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering\\footnotesize",
            f"\\caption{{{escape(caption)}}}",
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{{'l' * total}}}",
            "\\toprule",
            " & ".join([*(escape(title) for title in lead), *spans]) + " \\\\",
            " ".join(rules),
            " & ".join([*[""] * len(lead), *list(map(escape, fields)) * len(columns)]) + " \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    )
