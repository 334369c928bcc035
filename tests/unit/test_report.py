"""The report: pages that are well-formed, whose links resolve, which escape everything and say no more than records."""

import dataclasses
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import report_support as support
import tables_support
from PIL import Image

from ltpa.core import layout
from ltpa.core.errors import ConfigError, RecordError
from ltpa.pages import charts
from ltpa.pages.compare import compare, to_html, to_markdown
from ltpa.pages.summary import five_lines, in_words, read_summary
from ltpa.stages import report
from ltpa.tables.terminal import to_terminal


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "results" / "demo"
    report.run(support.make_run(folder), folder)
    return folder


@pytest.fixture(scope="module")
def pages(results):
    return support.read_pages(results / layout.REPORT)


def test_every_link_resolves_within_the_folder(results, pages):
    folder = results / layout.REPORT
    seen = 0
    for name, page in pages.items():
        for link in page.links:
            path, _, place = link.partition("#")
            if link == "data:,":
                continue
            assert ":" not in path and not path.startswith("/"), f"{name}: {link} leaves the folder"
            target = (folder / name).parent / path if path else folder / name
            assert target.resolve().is_relative_to(folder.resolve()) and target.is_file(), f"{name}: {link}"
            if place:
                assert place in pages[target.resolve().relative_to(folder.resolve()).as_posix()].ids, f"{name}: {link}"
            seen += 1
    assert seen > 100 and "table-small.html" in pages


def test_nothing_comes_from_another_host(results):
    for path in (results / layout.REPORT).rglob("*.*"):
        if path.suffix in (".html", ".css", ".js"):
            assert not re.search(r"https?://|//[a-z]|@import|url\(", path.read_text().replace("// ", "")), path


def test_what_users_name_is_escaped(results, pages):
    assert any("<script>alert('&')</script>\\u202e\\x1b[31m" in page.text for page in pages.values())
    for path in (results / layout.REPORT).rglob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text and "\x1b" not in text and "\u202e" not in text, path


def test_the_archive_is_the_folder_and_has_the_same_bytes_each_time(results, tmp_path):
    folder, archive = results / layout.REPORT, results / layout.REPORT_ZIP
    before = archive.read_bytes()
    (folder / "stale").mkdir()
    (folder / "stale" / "table-gone.html").write_text("from an earlier configuration")
    report.run(support.make_run(results), results)
    assert archive.read_bytes() == before
    assert not (folder / "stale").exists()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(tmp_path / "report"): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }


def test_the_first_page_names_what_went_wrong_first_and_counts(results, pages):
    text = " ".join(pages["index.html"].text.split())
    wrong = text.index("First: what went wrong")
    assert wrong < text.index("Mean accuracy of 1 networks") and text.index("loss of epoch 3 is not finite") > wrong
    assert "Not finished: Table 0: Small & complete lacks 4 runs" in text
    assert "Missing records: 1 of 11" in text
    summary = read_summary(results / layout.REPORT)
    counted = {kind: count for kind, count in summary.verdicts.items() if count}
    assert counted == {"withheld": 2, "failed": 1, "nothing": 6}
    assert (summary.checks, summary.checks_failed, summary.networks, summary.jobs, summary.failed) == (2, 1, 4, 10, 2)
    assert summary.headline.startswith("Mean accuracy of 1 networks with attention: 90.0 % with their own maps, 30.5 %")


def test_a_cell_leads_to_its_seeds_its_record_and_its_command(pages):
    page = pages["table-small.html"]
    assert "train/digits10/vgg/seed-1/result.json" in page.text and "7.75" in page.text
    assert "snakemake --cores all --force -- results/demo/train/digits10/vgg/seed-0/result.json" in page.text
    assert "records/train.html#digits10-vgg-1" in page.links
    assert any(tag == "use" for tag, _ in page.tags), "the learning curve"
    folded = [values for tag, values in page.tags if tag == "tr" and "outside" in str(values.get("class"))]
    assert len(folded) == 1, "RN-164 is not in this scale"


def test_the_same_images_lie_under_every_network(results, pages):
    page = pages["looks.html"]
    levels = {values["data-level"] for tag, values in page.tags if tag == "img" and "data-level" in values}
    assert levels == {"conv7", "combined"}
    folder = results / layout.REPORT / "figures" / "looks"
    strips = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    assert strips.keys() == {"images", "truth", "vgg-conv7", "vgg-combined", "vgg-otsu"}
    assert {strip.shape for strip in strips.values()} == {(96, 3 * 96 + 2 * 6, 4)}
    drawn = strips["truth"][..., 3] > 0
    assert (
        (drawn == (strips["vgg-otsu"][..., 3] > 0)).all()
        and drawn[24:26, 24:60].all()
        and not drawn[30:54, 30:54].any()
    )
    assert not strips["images"][:, 96:102].any(), "between two images"


def test_verdicts_have_a_text_beside_their_mark(tmp_path):
    spec = support.make_run(tmp_path / "demo")
    tables = [values | {"comparable": True} for values in spec.tables]
    report.run(dataclasses.replace(spec, comparable=True, tables=tables), tmp_path / "demo")
    page = support.Page((tmp_path / "demo" / "report" / "table-small.html").read_text())
    assert "? undecided (n < 3, +2 seeds)" in " ".join(page.text.split())
    assert "Verdicts are withheld" not in page.text
    assert read_summary(tmp_path / "demo" / "report").verdicts["undecided"] == 2


def extents(page: support.Page):
    """Of every chart of a page: its width and height, and every number of its shapes by axis."""
    shapes, box = [], (0.0, 0.0)
    for tag, values in page.tags:
        if tag == "svg" and "chart" in str(values.get("class")):
            box = tuple(map(float, str(values["viewbox"]).split()[2:]))
        elif tag in ("line", "circle", "text", "polyline", "polygon"):
            points = [tuple(map(float, pair.split(","))) for pair in str(values.get("points") or "").split()]
            points += [
                (float(values[x]), float(values[y])) for x, y in ("xy", ("x1", "y1"), ("x2", "y2")) if x in values
            ]
            if tag == "circle":
                points.append((float(values["cx"]), float(values["cy"])))
            shapes.append((box, points))
    return shapes


def test_nothing_of_a_chart_lies_outside_of_it(pages):
    found = [each for page in pages.values() for each in extents(page)]
    assert len(found) > 50
    for (width, height), points in found:
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points), (width, height, points)


def test_charts_cut_what_does_not_fit():
    rows = [("a network of a very long name " * 5, 50.0, -400.0, 900.0, "worse"), ("b", -0.1, None, None, "undecided")]
    svg = charts.forest(rows, 0.5, "%", "title")
    assert svg.count("dot worse") == 3, "the point, and an arrow at each end of the interval"
    assert "..." in svg
    assert "no curve" in charts.curves({}, title="t", across="epoch")
    one = charts.curves({0: [(1.0, 250.0)]}, title="t", across="epoch", dashed=90.0, dashed_label="chance")
    assert one.count("<circle") == 1
    canvas = charts.Canvas(10, 10, "small")
    with pytest.raises(ValueError, match=r"small: \(11, 5\) lies outside"):
        canvas.line(0, 0, 11, 5, "line")


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 100), (-0.03, 0.07), (3, 3000)])
def test_ticks_are_round_and_within(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 7 and low <= found[0] < found[-1] <= high


def test_a_run_ends_with_five_lines(results):
    lines = five_lines(read_summary(results / layout.REPORT), Path("results/demo/report"), "table1", 75.0)
    assert len(lines) == 5
    assert lines[:2] == ["Report:    results/demo/report/index.html", "Checks:    2, 1 failed"]
    assert lines[2].startswith("Time:      1 min 15 s (10 jobs, 15 s added up)")
    assert lines[4] == "Next:      ltpa show table1"
    assert [in_words(seconds) for seconds in (59.4, 60, 3600 * 3 + 59)] == ["59 s", "1 min 0 s", "3 h 0 min"]


def test_damaged_files_are_one_clear_line(tmp_path):
    results = tmp_path / "demo"
    spec = support.make_run(results)
    (results / layout.CHECKS_JSON).write_text("{")
    with pytest.raises(RecordError, match=r"checks\.json: not readable .*; delete it and run check again"):
        report.run(spec, results)
    with pytest.raises(RecordError, match=r"summary\.json: no report yet; make it with"):
        read_summary(results / layout.REPORT)


def test_the_default_configuration_needs_no_name_in_commands(results, pages):
    spec = dataclasses.replace(support.make_run(results), configfile="config/paper.yaml", tables=[])
    report.run(spec, results)
    assert not (results / layout.REPORT / "table-small.html").exists()
    report.run(support.make_run(results), results)
    assert "--configfile" not in pages["table-small.html"].text


def test_two_runs_are_compared_and_differences_marked(results, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(results / "tables", other / "tables")
    assert to_markdown(compare(results, other)).splitlines()[2] == "All 2 numbers are equal."
    path = other / "tables" / "small.csv"
    path.write_text(path.read_text().replace(",7.5,", ",7.75,").replace(",4.0,", ",,"))
    found = compare(results, other)
    assert [(each.mark, each.change) for each in found.differences] == [("↑", "+0.25"), ("A", "")]
    assert "0 numbers are equal, 1 differ, 1 are in one run alone." in to_markdown(found)
    page = support.Page(to_html(found))
    assert "7.50 (0.35), n=2" in page.text and "7.75 (0.35), n=2" in page.text
    with pytest.raises(ConfigError, match="no tables there; name a folder such as results/demo"):
        compare(results, tmp_path)


def test_the_terminal_keeps_rows_of_different_groups_apart_and_is_narrow(tmp_path):
    """Rows of one label stand in several groups, such as a network by level."""
    titles = [f"a column of some width {number}" for number in range(6)]
    lines = ["panel,group,row,column,metric,published,mean,sd,n,expected,missing"]
    lines += [
        f",{g},VGG,{title},error_pct,,{value}.25,0.5,2,2,"
        for g, value in (("all", 1), ("conv7", 2))
        for title in titles
    ]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    (tmp_path / "wide.tidy.csv").write_text("stage\n")
    shown = to_terminal(tmp_path / "wide.csv").splitlines()
    assert max(map(len, shown)) <= 100
    rows = [line.split() for line in shown if line.startswith(("VGG", "all", "conv7"))]
    assert rows[:4] == [["all"], ["VGG", *["1.25", "(0.50)"] * 3], ["conv7"], ["VGG", *["2.25", "(0.50)"] * 3]]
    assert len(rows) == 8 and shown[0] == "n=2/2"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
HARNESS = """<!DOCTYPE html><title>harness</title><pre id="found"></pre><script>
const found = [], pages = PAGES, widths = [390, 1366];
async function look(page, width) {
  const frame = document.createElement("iframe");
  frame.style.width = `${width}px`; frame.style.height = "900px"; frame.src = page;
  await new Promise((done) => { frame.onload = done; document.body.append(frame); });
  const root = frame.contentDocument.documentElement;
  const broken = [...frame.contentDocument.images].filter((image) => image.complete && !image.naturalWidth);
  found.push([page, width, root.scrollWidth, broken.length]);
  if (page === "table-small.html") {
    frame.contentDocument.querySelector("[popovertarget]").click();
    const box = frame.contentDocument.querySelector(":popover-open").getBoundingClientRect();
    found.push(["popover", width, box.right, 0]);
  }
  frame.remove();
}
(async () => {
  for (const page of pages) for (const width of widths) await look(page, width);
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium on the PATH (chromium, chromium-browser or google-chrome)")
def test_no_page_scrolls_sideways_on_a_phone_and_on_a_laptop(results, pages, tmp_path):
    shutil.copytree(results / layout.REPORT, tmp_path / "report")
    harness = tmp_path / "report" / "harness.html"
    harness.write_text(HARNESS.replace("PAGES", json.dumps(list(pages))))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([*command, harness.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', done.stdout).group(1))
    assert len(found) == 2 * (len(pages) + 1)
    assert [each for each in found if each[2] > each[1] or each[3]] == []


def test_the_hash_of_the_assets_covers_their_content(monkeypatch, tmp_path):
    from ltpa.pages import spec

    before = spec.assets_hash()
    shutil.copytree(spec.ASSETS, tmp_path / "templates")
    monkeypatch.setattr(spec, "ASSETS", tmp_path / "templates")
    assert spec.assets_hash() == before
    with open(tmp_path / "templates" / "style.css", "a") as stream:
        stream.write("\n")
    assert spec.assets_hash() != before


def test_records_of_other_runs_do_not_appear(tmp_path):
    """Views never say more than the records that their spec names."""
    results = tmp_path / "demo"
    spec = support.make_run(results)
    tables_support.put(results, tables_support.trained("digits10", "stray-network", 0, 1.0))
    report.run(spec, results)
    assert all("stray-network" not in path.read_text() for path in (results / layout.REPORT).rglob("*.html"))
