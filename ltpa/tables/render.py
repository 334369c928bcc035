"""Write a table model as CSV (full precision), Markdown, LaTeX (booktabs) or HTML (a complete page)."""

import csv
import dataclasses
import io
from collections.abc import Iterator

from ltpa.core.text import csv_value, html_text, latex_text, markdown_text
from ltpa.tables import latex
from ltpa.tables.claims import Claim
from ltpa.tables.model import Row, Table, TableCell, TablePanel

_CSV_COLUMNS = (
    *("table", "panel", "group", "row", "column", "variant", "stage", "dataset", "target", "condition", "metric"),
    *("published", "published_sd", "quoted", "mean", "sd", "n", "expected", "ci95_low", "ci95_high"),
    *("published_n", "delta", "delta_low", "delta_high", "delta_df", "verdict", "more_seeds", "pooled_sd"),
    *("baseline", "test", "test_n", "baseline_n", "test_delta", "test_p", "correlation", "test_p_holm"),
    *("missing", "unlearned", "where"),
)
ORDERS = "Published orders"  # the title of the block of claims, and the panel of its lines in the CSV
_DASH = "–"
_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .25rem .6rem; text-align: left; white-space: nowrap; }
thead { border-top: 2px solid; border-bottom: 1px solid; }
tbody { border-bottom: 2px solid; }
td.number { text-align: right; }
tr.group th { font-style: italic; font-weight: 400; border-top: 1px solid #ccc; }
.head { background: #fff4d6; border-left: 4px solid #d99a00; padding: .6rem 1rem; }
.notes { font-size: .85rem; color: #444; }
.scroll { overflow-x: auto; }
"""


def cell_texts(table: Table, cell: TableCell | None, seeds: str = "") -> list[str]:
    """The rounded texts of a cell, one per field of the table; `seeds` is what the column's title says of n."""
    if cell is None:
        return [_DASH] * len(table.fields)
    delta = _DASH if cell.delta is None else f"{_round(cell.delta, table.decimals):+.{table.decimals}f}"
    texts = {
        "published": _published(table, cell),
        "ours": _ours(table, cell, seeds),
        "prepared": _prepared(table, cell),
        "delta": delta,
        "verdict": cell.verdict or _DASH,
    }
    return [texts[field] for field in table.fields]


def to_csv(table: Table) -> str:
    """One line per cell, floats in full precision (`repr`), absent values empty; then one per published order.

    A line of panel `Published orders` has the network of the lower published number as row and that of the higher one
    as baseline; `published` is the one less the other, `test_delta` the same of ours.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for panel in table.panels:
        for row in panel.rows:
            for column, cell in zip(panel.columns, row.cells, strict=True):
                if cell is not None:
                    writer.writerow(_csv_values(table, panel, row, column, cell))
    writer.writerows(_csv_claim(table, claim) for claim in table.claims)
    return stream.getvalue()


def _name(table: Table) -> str:
    """A table's title, after its number in the paper where it is one of a paper's."""
    return f"{table.paper}: {table.title}" if table.paper else table.title


def to_markdown(table: Table) -> str:
    """Markdown with one pipe table per panel."""
    from tabulate import tabulate

    blocks = [
        f"# {markdown_text(_name(table))}",
        markdown_text(f"{table.caption} Unit: {table.unit}."),
    ]
    blocks += [f"> **{markdown_text(paragraph)}**" for paragraph in table.head]
    for panel in table.panels:
        if panel.title:
            blocks.append(f"## {markdown_text(panel.title)}")
        spanned = [
            field if place else _first(column, field, len(fields))
            for column, fields in zip(panel.columns, field_titles(table, panel), strict=True)
            for place, field in enumerate(fields)
        ]
        titles = ["", *table.lead, *spanned]
        body: list[list[str]] = []
        for group, texts in _lines(table, panel):
            body.append(
                [f"*{markdown_text(group)}*", *[""] * (len(titles) - 1)]
                if group
                else [markdown_text(text) for text in texts]
            )
        sides = ["left"] * (1 + len(table.lead)) + [_side(field) for field in table.fields] * len(panel.columns)
        heads = [markdown_text(title) for title in titles]
        blocks.append(tabulate(body, heads, tablefmt="pipe", disable_numparse=True, colalign=sides if body else None))
    if table.orders:
        blocks += [f"## {ORDERS}", "\n".join(f"- {markdown_text(text)}" for text in table.orders), "## Notes"]
    blocks.append("\n".join(f"- {markdown_text(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def to_latex(table: Table) -> str:
    """LaTeX: one `table` environment per panel, booktabs rules, everything escaped. Needs `\\usepackage{booktabs}`."""
    parts = [f"% {table.name}: needs \\usepackage{{booktabs}}"]
    for number, panel in enumerate(table.panels, start=1):
        title = f"{table.title}: {panel.title}" if panel.title else table.title
        many = len(table.panels) > 1
        parts.append(
            latex.environment(
                caption=" ".join([f"{title}.", *table.head, table.caption, f"Unit: {table.unit}."]),
                label=f"tab:{table.name}-{number}" if many else f"tab:{table.name}",
                lead=["", *table.lead],
                columns=list(panel.columns),
                fields=field_titles(table, panel),
                sides=[_side(field)[0] for field in table.fields],
                lines=list(_lines(table, panel)),
            )
        )
    if table.orders:
        orders = "\\\\\n".join(map(latex_text, table.orders))
        parts.append(f"\\paragraph{{{ORDERS}}}\n{orders}")
    parts.append("\\par\\footnotesize\n" + "\\\\\n".join(latex_text(note) for note in table.notes))
    return "\n".join(parts) + "\n"


def to_html(table: Table) -> str:
    """A complete HTML page that needs nothing else."""
    title = html_text(_name(table))
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>',
        f"<style>{_CSS}</style>\n</head>\n<body>\n<h1>{title}</h1>",
        *(f'<p class="head">{html_text(paragraph)}</p>' for paragraph in table.head),
        f"<p>{html_text(table.caption)} Unit: {html_text(table.unit)}.</p>",
        *(_html_panel(table, panel) for panel in table.panels),
        *_html_orders(table),
        '<ul class="notes">',
        *(f"<li>{html_text(note)}</li>" for note in table.notes),
        "</ul>\n</body>\n</html>",
    ]
    return "\n".join(parts) + "\n"


def _lines(table: Table, panel: TablePanel) -> Iterator[tuple[str, list[str]]]:
    """The panel's body: (group title, []) before each new group, ("", texts) for each row."""
    current = ""
    for row in panel.rows:
        if row.group != current:
            current = row.group
            yield current, []
        pairs = zip(row.cells, panel.seeds, strict=True)
        yield "", [row.label, *row.lead, *(text for cell, seeds in pairs for text in cell_texts(table, cell, seeds))]


def field_titles(table: Table, panel: TablePanel) -> list[list[str]]:
    """Per column the titles of its fields: that of our numbers says n where it is the same in the whole column."""
    return [
        [f"{field} (n={seeds})" if seeds and field == "ours" else field for field in table.fields]
        for seeds in panel.seeds
    ]


def _first(column: str, field: str, fields: int) -> str:
    """The title of a column's first field: `Digits: published`, and where there is but one, `Digits (n=2/2)`."""
    return f"{column}: {field}" if fields > 1 else f"{column} {field.removeprefix('ours')}".strip()


def _side(field: str) -> str:
    """Numbers stand at the right, so that their decimal points stand below each other."""
    return "left" if field == "verdict" else "right"


def _published(table: Table, cell: TableCell) -> str:
    entry = cell.entry
    if entry.value is None:
        return _DASH
    spread = "" if entry.sd is None else f" ({entry.sd:.{table.decimals}f})"
    return f"{entry.value:.{table.decimals}f}{spread}" + (" (quoted)" if entry.quoted else "")


def _ours(table: Table, cell: TableCell, seeds: str) -> str:
    ours = cell.estimate
    if ours is None:
        return cell.missing
    spread = _DASH if ours.sd is None else f"{ours.sd:.{table.decimals}f}"
    n = "" if seeds else f", n={ours.n}/{cell.expected}"
    return f"{_mean(table, ours.mean)} ({spread}){n}"


def _prepared(table: Table, cell: TableCell) -> str:
    return cell.missing if cell.estimate is None else _mean(table, cell.estimate.mean)


def _mean(table: Table, value: float) -> str:
    return f"{_round(value, table.decimals):.{table.decimals}f}"


def _round(value: float, decimals: int) -> float:
    """`value` rounded, with a plain zero instead of a negative one."""
    return round(value, decimals) + 0.0


def _csv_values(table: Table, panel: TablePanel, row: Row, column: str, cell: TableCell) -> list[object]:
    tidy, ours, entry = cell.rows[0], cell.estimate, cell.entry
    numbers = [None] * 6 if ours is None else [ours.mean, ours.sd, ours.n, cell.expected, ours.low, ours.high]
    judged = cell.judgement
    interval = [None] * 3 if judged is None else [judged.low, judged.high, judged.df]
    verdict = [cell.verdict, None, None] if judged is None else [judged.word, judged.more_seeds, int(judged.pooled)]
    compared: list[object] = [None] * 8
    if cell.comparison is not None:
        compared = [cell.comparison.baseline, *dataclasses.astuple(cell.comparison.difference), cell.comparison.p_holm]
    values = [
        *(table.name, panel.title, row.group, row.label, column),
        *(tidy.variant, tidy.stage, tidy.dataset, tidy.target, tidy.condition, tidy.metric),
        *(entry.value, entry.sd, int(entry.quoted)),
        *numbers,
        *(entry.n, cell.delta, *interval, *verdict),
        *compared,
        cell.missing,
        " ".join(str(row.seed) for row in cell.rows if row.value is not None and row.reason),
        entry.where,
    ]
    return [csv_value(value) for value in values]


def _csv_claim(table: Table, claim: Claim) -> list[object]:
    tidy = claim.item.rows[0]
    values = {
        "table": table.name,
        "panel": ORDERS,
        "group": tidy.panel,
        "row": claim.item.slot.entry.label,
        **{
            key: getattr(tidy, key)
            for key in ("column", "variant", "stage", "dataset", "target", "condition", "metric")
        },
        "published": claim.gap,
        "published_sd": claim.sd,
        "verdict": claim.word,
        "baseline": claim.other.slot.entry.label,
        "test": claim.ours.test,
        "test_n": claim.ours.n,
        "baseline_n": claim.ours.other_n,
        "test_delta": claim.ours.delta,
        "test_p": claim.ours.p,
        "correlation": claim.ours.correlation,
        "test_p_holm": claim.p_holm,
    }
    return [csv_value(values.get(column)) for column in _CSV_COLUMNS]


def _html_orders(table: Table) -> list[str]:
    if not table.orders:
        return []
    return [f"<h2>{ORDERS}</h2>\n<ul>", *(f"<li>{html_text(text)}</li>" for text in table.orders), "</ul>"]


def _html_panel(table: Table, panel: TablePanel) -> str:
    width = len(table.fields)
    first = "".join(f'<th rowspan="2">{html_text(title)}</th>' for title in ("", *table.lead))
    first += "".join(f'<th colspan="{width}" scope="colgroup">{html_text(title)}</th>' for title in panel.columns)
    second = "".join(f"<th>{field}</th>" for fields in field_titles(table, panel) for field in fields)
    total = 1 + len(table.lead) + width * len(panel.columns)
    numbers = [' class="number"' if _side(field) == "right" else "" for field in table.fields]
    sides = [""] * len(table.lead) + numbers * len(panel.columns)
    body = []
    for group, texts in _lines(table, panel):
        if group:
            body.append(f'<tr class="group"><th colspan="{total}">{html_text(group)}</th></tr>')
        else:
            cells = "".join(f"<td{side}>{html_text(text)}</td>" for side, text in zip(sides, texts[1:], strict=True))
            body.append(f'<tr><th scope="row">{html_text(texts[0])}</th>{cells}</tr>')
    caption = f"<caption>{html_text(panel.title)}</caption>\n" if panel.title else ""
    rows = "\n".join(body)
    return (
        f'<div class="scroll">\n<table>\n{caption}<thead>\n<tr>{first}</tr>\n<tr>{second}</tr>\n</thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )
