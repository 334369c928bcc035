"""Booktabs tables of LaTeX."""

from collections.abc import Sequence

from ltpa.core.text import latex_text


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
            f"\\begin{{tabular}}{{{'l' * total}}}",
            "\\toprule",
            " & ".join([*(latex_text(title) for title in lead), *spans]) + " \\\\",
            " ".join(rules),
            " & ".join([*[""] * len(lead), *list(map(latex_text, fields)) * len(columns)]) + " \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    )
