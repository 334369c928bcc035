"""Booktabs tables of LaTeX."""

from collections.abc import Sequence

from ltpa.core.text import latex_text


def environment(
    caption: str,
    label: str,
    lead: Sequence[str],
    columns: Sequence[str],
    fields: Sequence[Sequence[str]],
    sides: Sequence[str],
    lines: Sequence[tuple[str, Sequence[str]]],
) -> str:
    """A `table` environment with two header rows: column titles spanning their fields, then the fields.

    `fields` are the titles of each column's fields, `sides` whether they stand `l` or `r`.
    `lines` are (group title, []) or ("", texts), where `texts` has one text per column of the tabular.
    """
    width = len(sides)
    total = len(lead) + width * len(columns)
    first = len(lead) + 1
    spans = [f"\\multicolumn{{{width}}}{{c}}{{{latex_text(title)}}}" for title in columns]
    rules = [f"\\cmidrule(lr){{{first + i * width}-{first + (i + 1) * width - 1}}}" for i in range(len(columns))]
    body = []
    for group, texts in lines:
        if group:
            body.append(f"\\multicolumn{{{total}}}{{l}}{{\\emph{{{latex_text(group)}}}}} \\\\")
        else:
            body.append(" & ".join(map(latex_text, texts)) + " \\\\")
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering\\footnotesize",
            f"\\caption{{{latex_text(caption)}}}",
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{{'l' * len(lead) + ''.join(sides) * len(columns)}}}",
            "\\toprule",
            " & ".join([*(latex_text(title) for title in lead), *spans]) + " \\\\",
            " ".join(rules),
            " & ".join([*[""] * len(lead), *(latex_text(title) for titles in fields for title in titles)]) + " \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    )
