"""Text from outside, in every output: what reads the output finds the text and nothing else."""

import csv
import dataclasses
import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tables_support as support
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ltpa.core.text import csv_value, figure_text, html_text, latex_text, markdown_text, printable
from ltpa.plan import Plan, views
from ltpa.plan.config import load_config
from ltpa.report.boxes import draw_boxes
from ltpa.report.curves import draw_attack_curves, draw_learning_curves
from ltpa.report.gallery import Cell, draw_gallery
from ltpa.report.overlays import draw_overlays
from ltpa.report.steps import draw_steps
from ltpa.tables import render
from ltpa.tables.build import build_table
from ltpa.tables.datasets import build_datasets_table
from ltpa.tables.declaration import parse_declaration
from ltpa.tables.published import from_dicts

HOSTILE = [
    "$x_1$ and $\\frac{$",
    "_hidden",
    "a\nb\r\n\n| c |",
    "caf\udce9\x1b[31m\x00",
    "=HYPERLINK(1)",
    "# 1. - `a` *b* [c](d) <i>&amp;~~e~~ \\",
    "-- ''q`` \"quoted\" ^~{}%#&_ [x] *",
    "\u202eright\u2028left",
    "日本 Ω ß é ą ï ¡ « \u00ad € \ue000 \U0001f600",
    "",
    "1. one",
    "- two",
    "+ 3",
    "---",
    "===",
    "#",
]
# Any text, with many of the characters that some format reads as markup; halves of surrogate pairs included.
TEXTS = st.text(st.one_of(st.sampled_from("\\`*_|<>[](){}&~$#+-=.!'\"^% \n\r\t1a:;@,/"), st.characters()), max_size=30)


def every_hostile(test):
    """The property on each hostile text, besides those that hypothesis makes up."""
    for text in HOSTILE:
        test = example(text)(test)
    return settings(max_examples=150, deadline=None, derandomize=True)(given(TEXTS)(test))


@every_hostile
def test_printable_is_one_line_without_commands(text):
    clean = printable(text)
    clean.encode()
    assert clean.splitlines() in ([], [clean])
    assert printable(clean) == clean


def _words(tokens):
    """The text that a reader sees of Markdown tokens; fails on markup within it."""
    children = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {child.type for child in children} <= {"text", "text_special"}, children
    return "".join(child.content for child in children)


@every_hostile
def test_markdown_reads_as_the_text(text):
    wanted = printable(text).strip()
    parser = MarkdownIt("gfm-like", {"linkify": False})
    for before, kinds in (
        ("", ["paragraph_open", "inline", "paragraph_close"]),
        ("## ", ["heading_open", "inline", "heading_close"]),
    ):
        tokens = parser.parse(before + markdown_text(text))
        assert [token.type for token in tokens] == (kinds if wanted or before else [])
        assert _words(tokens) == wanted
    items = parser.parse(f"- {markdown_text(text)}\n- second")
    assert [token.type for token in items].count("list_item_open") == 2
    assert _words(items) == wanted + "second"
    row = parser.parse(f"| a | b |\n|---|---|\n| {markdown_text(text)} | x |\n")
    assert [token.type for token in row].count("td_open") == 2
    assert _words(row) == f"ab{wanted}x"


@every_hostile
def test_html_reads_as_the_text(text):
    parts = []
    parser = HTMLParser(convert_charrefs=True)
    parser.handle_data = parts.append
    parser.handle_starttag = lambda tag, attributes: parts.append(dict(attributes)["title"])
    parser.feed(f'<p title="{html_text(text)}">{html_text(text)}')
    parser.close()
    assert "".join(parts) == 2 * printable(text)


@every_hostile
def test_csv_has_one_line_and_no_formula(text):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([csv_value(text), "end"])
    assert stream.getvalue().count("\n") == 1
    [[cell, _]] = csv.reader(io.StringIO(stream.getvalue()))
    assert cell.removeprefix("'") == printable(text).removeprefix("'")
    assert cell[:1] not in ("=", "@")


def test_csv_leaves_numbers_alone():
    assert [csv_value(value) for value in (-0.5, None, 3, "-0.5", "+inf", "-", "–")] == [
        *(-0.5, None, 3, "-0.5", "+inf"),
        *("'-", "–"),
    ]


@every_hostile
def test_latex_is_ascii_without_open_braces_or_commands(text):
    clean = latex_text(text)
    assert clean.isascii() and clean.isprintable()
    depth, escaped = 0, False
    for letter in clean:
        depth += 0 if escaped else {"{": 1, "}": -1}.get(letter, 0)
        escaped = letter == "\\" and not escaped
        assert depth >= 0
    assert depth == 0 and not escaped


def test_latex_of_special_characters():
    assert latex_text("a_b & 5 % $x {y} #1 ~ ^ \\") == (
        r"a\_b \& 5 \% \$x \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert latex_text("[1] ≤ ∞²") == r"{[}1{]} $\le$ $_\infty$$^2$"
    assert latex_text('--"é" – ï') == r"""-{}-{\char34}{\'{e}}{\char34} -- {\"{\i}}"""
    assert latex_text("a\nb 中") == r"a\textbackslash{}nb {[}U+4E2D{]}"


@every_hostile
def test_figures_set_no_mathematics(text):
    from matplotlib.text import Text

    wanted = printable(text)
    shown, is_mathematics = Text()._preprocess_math(figure_text(text))
    assert not is_mathematics or not wanted
    assert shown.removeprefix(" ") == wanted.removeprefix(" ")
    assert not figure_text(text).startswith("_")


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
@pytest.mark.parametrize("name", [*HOSTILE[:4], *HOSTILE[7:10]])
def test_every_picture_takes_every_name(tmp_path, name):
    image, box = np.zeros((1, 8, 8, 3), np.uint8), np.array([[[0, 0, 4, 4]]])
    maps = np.ones((1, 8, 8))
    draw_overlays(tmp_path / "overlays.png", image, None, [name], {name: maps}, caption=name)
    draw_gallery([tmp_path / "gallery.png"], [name], [name], [[Cell(image[0], caption=name)]], heading=name)
    draw_boxes(tmp_path / "boxes.png", image, box, [name])
    draw_steps(tmp_path / "steps.png", image, box[0], image, [(name, maps, [name])], name)
    draw_learning_curves(tmp_path / "learning.png", {name: [[(1, 2.0), (2, 1.0)]]}, 90.0, name)
    draw_attack_curves(tmp_path / "attack.png", {name: {1.0: [5.0]}}, {name: {1.0: 4.0}}, name, name)


def _hostile_table(name):
    """The small table, with `name` wherever a text is free."""
    texts = {"title": name, "caption": name, "paper": name, "notes": [name], "groups": {"existing": name}}
    columns = [{"title": f"{name} {source}", "source": source} for source in ("cifar10", "svhn")]
    published = [
        dataclasses.replace(entry, label=f"{name} {entry.label}", where=name, group="existing")
        for entry in support.PUBLISHED
    ]
    declaration = support.declaration(**texts, columns=columns)
    return build_table(support.spec(standins={"digits10": name}), declaration, published, {})


def _table(plan, name):
    spec = views.table_spec(plan, name)
    declaration, published = parse_declaration(spec.declaration, name), from_dicts(spec.published)
    if declaration.kind == "datasets":
        return build_datasets_table(spec, declaration, published, [])
    return build_table(spec, declaration, published, {})


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine (texlive-latex-recommended)")
def test_every_table_compiles(tmp_path):
    root = Path(__file__).parents[2]
    tables = [_hostile_table(name) for name in HOSTILE if name]
    for scale in ("config", "paper", "extensions", "finegrained"):
        plan = Plan(load_config(root / "config" / f"{scale}.yaml"))
        tables += [_table(plan, name) for name in plan.tables if name in plan.config.tables]
    lines = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}"]
    for number, table in enumerate(tables):
        lines += [render.to_latex(table).replace("\\label{tab:", f"\\label{{tab:{number}-"), "\\clearpage"]
    (tmp_path / "all.tex").write_text("\n".join([*lines, "\\end{document}", ""]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    assert b"Missing character" not in (tmp_path / "all.log").read_bytes()
