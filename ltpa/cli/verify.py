"""The command `ltpa verify`: are the results of a configuration what they say they are?"""

import argparse
from typing import TYPE_CHECKING

from ltpa.cli.options import LOOK, Command, add_config_option, load_plan
from ltpa.core.errors import RecordError

if TYPE_CHECKING:
    from ltpa.plan import Plan
    from ltpa.stages.verify import Expected


def add_commands(command: Command) -> None:
    """Add `verify`."""
    verify = command("verify", _verify, "compare results with their records, their configuration and each other", LOOK)
    verify.add_argument("--deep", action="store_true", help="hash large arrays, too, and look into every network")
    add_config_option(verify)


def _verify(options: argparse.Namespace) -> None:
    from ltpa.stages import verify

    plan = load_plan(options)
    expected = _expected(plan, f" --configfile {options.config}" if options.config else "")
    if count := verify.run(expected, plan.results, options.deep):
        raise RecordError(f"{plan.results}: {count} differences; the lines above name each, and what mends it")
    results = sum(len(run.seeds) for run in expected.runs)
    print(f"{plan.results}: {results} results, {len(expected.tables)} tables, checks and pictures are whole")


def _expected(plan: "Plan", where: str) -> "Expected":
    from ltpa.plan import jobs, products, views
    from ltpa.stages.verify import Expected, ExpectedRun

    manifests = products.manifests(plan)
    return Expected(
        prepared=[name for name in plan.config.datasets if plan.manifest(name) in manifests],
        runs=[
            ExpectedRun(
                *run,
                spec=jobs.spec(plan, *run),
                seeds=plan.config.seeds,
                outputs=jobs.outputs(plan, run.stage),
                module=jobs.stage_module(plan, run.stage),
            )
            for run in views.all_runs(plan)
        ],
        tables=[views.table_spec(plan, name) for name in plan.config.tables],
        check=views.check_spec(plan),
        figures=bool(views.figure_files(plan)),
        track=views.track_spec(plan) if plan.config.jobs.track else None,
        remake=f"snakemake all_tables{where}",
        track_again=f"ltpa track{where}",
    )
