"""Renderers against golden files, and their escaping against what reads the result.

Set LTPA_UPDATE_GOLDEN=1 to rewrite the golden files after an intended change; then read the diff.
"""

import csv
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tables_support as support

from ltpa.core import layout
from ltpa.stages import table as stage
from ltpa.tables import render
from ltpa.tables.build import build_table
from ltpa.tables.frame import index_records

GOLDEN = Path(__file__).parents[1] / "golden"
SUFFIXES = (*layout.TABLE_SUFFIXES, "tidy.csv")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    stage.run(support.spec(), folder, support.small_records(folder))
    return folder


@pytest.fixture(scope="module")
def model(results):
    spec = support.spec()
    index = index_records(support.small_records(results), results, spec)
    return build_table(spec, support.declaration(), support.PUBLISHED, index)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_golden(results, suffix):
    text = layout.table_path(results, "small", suffix).read_text()
    golden = GOLDEN / f"small.{suffix}"
    if os.environ.get("LTPA_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


class Reader(HTMLParser):
    """Collects the texts of cells and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.span = int(dict(attributes).get("colspan", 1))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.rows[-1] += [""] * (self.span - 1)

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_html_is_well_formed_and_holds_the_cells(model):
    reader = Reader()
    reader.feed(render.to_html(model))
    assert reader.open == []
    body = reader.rows[2:]
    assert reader.rows[1][:3] == ["published", "ours (n=2/2)", "delta"]
    assert {len(row) for row in body} == {7}
    assert body[1][:4] == ["VGG", "7.77 (0.08)", "7.50 (0.35)", "-0.27"]


def test_html_escapes(model):
    text = render.to_html(model)
    assert "Small &amp; complete" in text
    assert "5 &lt; 6" in text


def test_markdown_rows_have_equal_numbers_of_cells(model):
    lines = [line for line in render.to_markdown(model).splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert r"5 \< 6 \| #1." in render.to_markdown(model)


def test_latex_rows_have_equal_numbers_of_cells(model):
    text = render.to_latex(model)
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    rows = [line for line in body if "multicolumn" not in line]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {7}
    assert r"\caption{Small \& complete." in text
    assert r"Error\_rate of 100 \%" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_tidy_csv_reads_back(model):
    from ltpa.tables import frame

    rows = list(csv.DictReader(io.StringIO(frame.to_csv(model.tidy()))))
    assert len(rows) == 5 * 2 + 4
    assert {row["status"] for row in rows} >= {
        "ok",
        "failed",
        "missing",
        "no such target",
        "quoted",
        "not in this scale",
    }


def test_a_rounded_zero_has_no_sign(results):
    spec = support.spec(seeds=[0], roles={"cifar10": "x"})
    path = support.put(results, support.trained("x", "vgg", 0, 7.7699999))
    model = build_table(spec, support.declaration(), support.PUBLISHED, index_records([path], results, spec))
    assert render.cell_texts(model, model.panels[0].rows[0].cells[0])[2] == "+0.00"
