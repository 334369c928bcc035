"""Every file that the jobs of a configuration declare: `all_tables` asks for each, so that none can go unnoticed."""

from collections.abc import Iterable

from ltpa.core import layout
from ltpa.plan import gallery, jobs
from ltpa.plan.plan import Plan, Run
from ltpa.plan.views import all_runs, figure_files, table_files, table_manifests, table_runs, with_ancestors

PICTURES = ("attention.png", "learning-curves.png", "fooling-rate.png", "map-use.png")


def products(plan: Plan) -> list[str]:
    """Paths of all outputs, each once: of datasets, of every run, of every view."""
    views = [path for name in plan.config.tables for path in table_products(plan, name)]
    views += [str(plan.results / name) for name in (layout.CHECKS, layout.CHECKS_JSON)]
    if plan.config.jobs.track:
        views.append(str(plan.results / layout.TRACKING))
    for index in figure_files(plan):
        views += [index, *(str(plan.results / "figures" / name) for name in PICTURES)]
    figures = gallery.gallery_spec(plan).figures
    views += [str(layout.gallery_path(plan.results, "index", "json"))]
    views += [path for name in figures for path in gallery.files(plan, name)]
    views += [str(plan.results / layout.REPORT / "index.html"), str(plan.results / layout.REPORT_ZIP)]
    return list(dict.fromkeys([*manifests(plan), *run_products(plan, all_runs(plan)), *views]))


def run_products(plan: Plan, runs: Iterable[Run]) -> list[str]:
    """All outputs of runs, record or not, seed by seed."""
    folders = [(run.stage, layout.run_dir(plan.results, *run, seed)) for run in runs for seed in plan.config.seeds]
    return [str(folder / name) for stage, folder in folders for name in jobs.outputs(plan, stage)]


def manifests(plan: Plan) -> list[str]:
    """The manifests of the datasets that a run, a table or a figure reads."""
    read = {path for run in all_runs(plan) for path in jobs.inputs(plan, *run, plan.config.seeds[0])}
    read |= {path for name in plan.config.tables for path in table_manifests(plan, name)}
    read |= set(gallery.gallery_inputs(plan))
    return [path for path in map(plan.manifest, plan.config.datasets) if path in read]


def table_products(plan: Plan, table: str) -> list[str]:
    """All files of a table."""
    return [str(layout.table_path(plan.results, table, "tidy.csv")), *table_files(plan, table)]


def behind_table(plan: Plan, table: str) -> list[str]:
    """A table's files, and all outputs of the runs that it draws on."""
    runs = with_ancestors(plan, table_runs(plan, table))
    return [*table_products(plan, table), *run_products(plan, runs), *table_manifests(plan, table)]
