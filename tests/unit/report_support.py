"""A small run with every kind of thing that a report shows, and a reader of its pages."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import tables_support as support

from ltpa.core import layout
from ltpa.core.checks import Check
from ltpa.core.records import Metric, Record
from ltpa.pages.spec import ReportSpec, assets_hash
from ltpa.report.index import write_index
from ltpa.report.looks import FOLDER, Looks
from ltpa.stages import table

HOSTILE = "<script>alert('&')</script>\u202e\x1b[31m"
SEEDS = (0, 1)


def _attacked(variant: str, seed: int) -> Record:
    values = [(f"eps={norm}", 10.0 * norm + seed) for norm in (1, 2, 8)]
    metrics = [Metric("fooling_rate_pct", value, 500, "digits10", condition) for condition, value in values]
    return support.record("fgsm", "digits10", variant, seed, metrics)


def _replaced(variant: str, seed: int) -> Record:
    values = {("own_accuracy_pct", ""): 90.0, ("accuracy_pct", "uniform all"): 30.0 + seed}
    values["refit_accuracy_pct", "uniform all"] = 80.0
    metrics = [Metric(name, value, 500, "digits10", condition) for (name, condition), value in values.items()]
    return support.record("causal", "digits10", variant, seed, metrics)


def make_run(results: Path) -> ReportSpec:
    """Write records, histories, tables and checks below `results`; the spec of their report."""
    paths = [
        *support.small_records(results),
        *(support.put(results, make("vgg", seed)) for make in (_attacked, _replaced) for seed in SEEDS),
    ]
    for seed in SEEDS:
        history = layout.run_dir(results, "train", "digits10", "vgg", seed) / layout.HISTORY
        history.write_text(f"epoch,test_error_pct\n1,90.0\n2,\n3,{40 + seed}.0\n")
    tables = support.spec()
    table.run(tables, results, paths[:6])
    checks = [
        Check("learns", "vgg on digits10", 0.1, "≤ 0.5", True, "fine"),
        Check("attends", HOSTILE, 0.9, "≥ 1", False, HOSTILE),
    ]
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    masks = np.zeros((3, 32, 32), np.uint8)
    masks[:, 8:20, 8:20] = 1
    looks = Looks(results / "figures" / FOLDER, images, masks, ["zero", HOSTILE, "two"])
    looks.add("vgg", HOSTILE, {"conv7": 1.0 + masks, "combined": 1.0 + 4.0 * masks})
    write_index(results / "figures", looks.close(), {}, results, [])
    content = {"checks": [dataclasses.asdict(check) for check in checks]}
    (results / layout.CHECKS_JSON).write_text(json.dumps(content))
    relative = [path.relative_to(results).as_posix() for path in paths]
    values = dataclasses.asdict(tables) | {"records": relative[:6]}
    return ReportSpec(
        scale="demo",
        records=[*relative, "train/svhn/vgg/seed-1/result.json"],
        comparable=False,
        note=HOSTILE,
        seeds=list(SEEDS),
        labels={"vgg": HOSTILE},
        standins={"digits10": HOSTILE},
        tables=[values],
        figures=["figures", "figures/paper"],
        configfile="",
        max_error_of_chance={"cross-entropy": 0.5, "two-stream": 0.9},
        assets=assets_hash(),
    )


VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Reads one page: refuses tags that do not close in order, collects links, ids and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.stack, self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag."""
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute twice: {attrs}"
        if tag not in VOID:
            self.stack.append(tag)
        self.tags.append((tag, values))
        if name := values.get("id"):
            assert name not in self.ids, f"id {name} twice"
            self.ids.add(name)
        self.links += [str(values[key]) for key in ("href", "src") if key in values]
        self.links += [f"#{values[key]}" for key in ("popovertarget", "for") if key in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag of SVG that closes itself."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close a tag."""
        assert self.stack and self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


def read_pages(folder: Path) -> dict[str, Page]:
    """All pages of a report, by path below its folder."""
    return {path.relative_to(folder).as_posix(): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
