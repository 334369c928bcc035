# What all rules share: the plan, the interpreter, wildcard constraints.

import os
import shlex

from ltpa.core import layout
from ltpa.core.config import parse_config
from ltpa.core.errors import LtpaError
from ltpa.core.provenance import module_closure
from ltpa.plan import Plan, views
from ltpa.plan.plan import EVALUATIONS

try:
    PLAN = Plan(
        parse_config(config, ", ".join(map(str, workflow.configfiles)) or "--config")
    )
except LtpaError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(PLAN.results)
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
JOBS = PLAN.config.jobs

# Under --sdm conda the job's own environment provides python; otherwise the interpreter that runs Snakemake does.
CONDA = any(
    str(method).endswith("conda")
    for method in workflow.deployment_settings.deployment_method
)
PYTHON = "python" if CONDA else shlex.quote(sys.executable)

# Folders of archives come to the job by the environment: where they lie must not make anything run anew.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(ROOT))} OMP_NUM_THREADS={JOBS.threads} "
    f"LTPA_ARCHIVES={shlex.quote(os.pathsep.join(JOBS.archives))}; "
)


wildcard_constraints:
    dataset="|".join(PLAN.datasets),
    variant="|".join(PLAN.variants),
    table="|".join(PLAN.tables),


def code(stage):
    """Source files that can change what a stage writes."""
    return [str(path) for path in module_closure(f"ltpa.stages.{stage}")]


def seeds_name(block):
    """How a block of seeds is called in rule and file names."""
    return "_".join(map(str, block))


TABLE_FILES = [
    str(layout.table_path(PLAN.results, table, suffix))
    for table in PLAN.config.tables
    for suffix in layout.TABLE_SUFFIXES
]
CHECKS = f"{RESULTS}/checks.md"
TRACKING = [f"{RESULTS}/tracking.json"] if JOBS.track else []
FIGURES = f"{RESULTS}/figures/index.json"
