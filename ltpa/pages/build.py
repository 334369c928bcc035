"""All pages of a report."""

import dataclasses
import json
from pathlib import Path

from ltpa.pages import curves, leaderboard, looks, overview, provenance, tables
from ltpa.pages.cells import MARKS, MEANINGS
from ltpa.pages.run import BuildTable, Run, anchor
from ltpa.pages.site import Site
from ltpa.pages.spec import ReportSpec
from ltpa.pages.summary import SUMMARY, in_words, summarise

_MENU = (
    ("index.html", "Overview"),
    ("leaderboard.html", "Leaderboard"),
    ("looks.html", "Where it looks"),
    ("curves.html", "Curves"),
    ("checks.html", "Checks"),
    ("provenance.html", "Provenance"),
)


def build_report(spec: ReportSpec, results: Path, build_table: BuildTable) -> Site:
    """Every file of the report, from what lies below `results`.

    Raises:
        RecordError: a record, an index of pictures or the checks are damaged.
        ConfigError: a table's declaration is wrong.
    """
    run = Run(spec, results, build_table)
    summary = summarise(run)
    site = Site(run=run, spec=spec, summary=summary, menu=_MENU, marks=MARKS, meanings=MEANINGS, anchor=anchor,
                in_words=in_words)  # fmt: skip
    site.add(SUMMARY, (json.dumps(dataclasses.asdict(summary), indent=1, ensure_ascii=False) + "\n").encode())
    for add in (overview.add, tables.add, leaderboard.add, looks.add, curves.add, provenance.add):
        add(site, run)
    return site
