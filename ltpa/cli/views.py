"""The commands that look at result records: tables, checks, figures, MLflow, what is done."""

import argparse
import importlib
import time
from pathlib import Path

from ltpa.cli.options import (
    INTERNAL,
    LOOK,
    Command,
    add_config_option,
    add_spec_options,
    as_seconds,
    load_plan,
    resolve,
)
from ltpa.cli.output import print_text
from ltpa.core.errors import ConfigError
from ltpa.core.text import printable


def add_commands(command: Command) -> None:
    """Add what makes the views of records, and what looks at them."""
    for name, run, text in (
        ("table", _view, "build one table from result records"),
        ("check", _view, "assert that networks learned and attention attends"),
        ("figures", _view, "draw overlays and curves"),
        ("gallery", _gallery, "draw the figures of images and maps"),
        ("report", _view, "write the report, a folder of pages"),
    ):
        view = command(name, run, text, INTERNAL)
        view.set_defaults(stage=name)
        view.add_argument("--spec", required=True, help="the job's spec: JSON, or @FILE")
        view.add_argument("--results", type=Path, required=True, help="folder of the scale, results/<scale>")

    track = command("track", _track, "write result records into the MLflow store")
    add_spec_options(track)
    track.add_argument("--records", type=Path, nargs="*", help="result records (default: all that are there)")
    track.add_argument("--tables", type=Path, nargs="*", help="tidy tables to compare with MLflow (default: all)")
    track.add_argument("--follow", action="store_true", help="write the epochs of running trainings as they end")
    track.add_argument(
        "--idle",
        type=as_seconds,
        default=60.0,
        metavar="N",
        help="with --follow: end when nothing trained for so long",
    )
    track.add_argument("--rebuild", action="store_true", help="make the store anew from the records")
    compare = command("compare", _compare, "compare the tables of two runs, differences marked", LOOK)
    compare.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="a folder results/<scale>")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write a page instead of printing Markdown")
    summary = command(
        "summary", _summary, "end a run with five lines: report, checks, time, headline, what to do next", LOOK
    )
    summary.add_argument("--since", type=as_seconds, metavar="T", help="when the run began, in seconds since 1970")
    add_config_option(summary)
    add_config_option(command("status", _status, "show which runs of a configuration are done", LOOK))
    findings = command("findings", _findings, "write what a run found, in sentences that its numbers choose", LOOK)
    add_config_option(findings)
    findings.add_argument("--output", type=Path, metavar="FILE", help="default: results/<scale>/findings.md")
    show = command("show", _show, "print a finished table and say where its files are", LOOK)
    show.add_argument("table")
    add_config_option(show)


def _view(options: argparse.Namespace) -> None:
    stage = importlib.import_module(f"ltpa.stages.{options.stage}")
    spec = stage.SPEC.from_json(options.spec)
    stage.run(spec, options.results, [options.results / path for path in spec.records])


def _gallery(options: argparse.Namespace) -> None:
    from ltpa.stages import gallery

    gallery.run(gallery.SPEC.from_json(options.spec), options.results)


def _track(options: argparse.Namespace) -> None:
    from ltpa.plan import views
    from ltpa.stages import track

    if options.spec:
        spec, results = resolve(options, track.SPEC, views.track_spec)
        records, tables = ([results / path for path in paths] for paths in (spec.records, spec.tables))
        track.run(spec, results, records, tables, options.rebuild)
        return
    plan = load_plan(options)
    results = options.results or plan.results
    if options.follow:
        from ltpa.runtime.stopping import stop_requests

        with stop_requests() as stop:
            print(f"following the trainings below {results}; Ctrl-C ends this without harm to them", flush=True)
            track.follow(views.track_spec(plan), results, stop, options.idle, lambda text: print(text, flush=True))
        return
    records = options.records or [p for p in map(Path, views.records(plan, views.all_runs(plan))) if p.is_file()]
    tables = options.tables or sorted((results / "tables").glob("*.tidy.csv"))
    track.run(views.track_spec(plan), results, records, tables, options.rebuild)


def _status(options: argparse.Namespace) -> None:
    from ltpa.plan.summary import status

    print_text(status(load_plan(options)))


def _findings(options: argparse.Namespace) -> None:
    from ltpa.core import layout
    from ltpa.core.files import write_text
    from ltpa.plan.findings import findings

    plan = load_plan(options)
    path = options.output or plan.results / layout.FINDINGS
    write_text(path, findings(plan))
    print(path)


def _compare(options: argparse.Namespace) -> None:
    from ltpa.core.files import write_text
    from ltpa.pages.compare import compare, summary, to_html, to_markdown

    found = compare(*options.runs)
    if options.html:
        write_text(options.html, to_html(found))
        print(f"{printable(options.html)}: {summary(found)}")
    else:
        print(to_markdown(found), end="")


def _summary(options: argparse.Namespace) -> None:
    from ltpa.core import layout
    from ltpa.pages.summary import five_lines, read_summary

    plan = load_plan(options)
    report = plan.results / layout.REPORT
    took = None if options.since is None else max(time.time() - options.since, 0)
    print("\n".join(five_lines(read_summary(report), report, plan.config.tables[0], took)))


def _show(options: argparse.Namespace) -> None:
    from ltpa.core import layout
    from ltpa.core.declared import unknown_name

    plan = load_plan(options)
    if options.table not in plan.tables:
        raise ConfigError(unknown_name("table", options.table, list(plan.tables)))
    path = layout.table_path(plan.results, options.table, "csv")
    if not path.is_file():
        raise ConfigError(f"{path} is not there yet; make it with: snakemake {options.table}")
    from ltpa.tables.terminal import to_terminal

    scale = plan.config.scale
    table = plan.tables[options.table]
    print(printable(f"{table['title']} ({table['unit']}), scale {scale.name}"))
    if not scale.comparable:
        print("From stand-in data or short training: not comparable with the paper.")
    print(f"\n{to_terminal(path)}\n\nAll tables (csv, md, tex, html): {path.parent}/")
