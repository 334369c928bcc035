# What all rules share: the plan, the interpreter, wildcard constraints.

import os
import shlex
import signal

from ltpa.runtime.lost_jobs import extend_slurm_plugin
from ltpa.core import layout
from ltpa.core.config import parse_config
from ltpa.core.errors import LtpaError
from ltpa.core.provenance import module_closure
from ltpa.plan import Plan, gallery, views
from ltpa.plan.plan import EVALUATIONS

SOURCE = ", ".join(map(str, workflow.configfiles)) or "--config"

try:
    PLAN = Plan(parse_config(config, SOURCE), SOURCE)
except LtpaError as error:
    raise WorkflowError(str(error)) from None

for folder in (PLAN.results.parent, PLAN.results):
    if folder.exists() and not (
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    ):
        raise WorkflowError(
            f"{folder}: not a folder that can be read; move it away or mend its rights"
        )

RESULTS = str(PLAN.results)
LOGS = f"{RESULTS}/logs"
JOBS = PLAN.config.jobs


def literal(text):
    """Text as one word of a shell command in which Snakemake replaces what stands in braces."""
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


# The interpreter reaches jobs by the environment, so that a clone with a .venv of its own is no change of a rule's code.
# Under --sdm conda the job's own environment provides python; otherwise the interpreter that runs Snakemake does.
CONDA = any(
    str(method).endswith("conda")
    for method in workflow.deployment_settings.deployment_method
)
PYTHON = "python" if CONDA else literal(sys.executable)
LTPA = 'exec "$LTPA_PYTHON" -m ltpa'

# A scheduler sends SIGUSR1 to all processes of a job when its time is nearly over. A training saves its state and stops;
# the Snakemake around it and other jobs must not die of it. Jobs are started by `exec`, so that no shell stands between.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

extend_slurm_plugin()

# What must not make anything run anew comes to the job by the environment: where archives lie, how GPUs are shared.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={literal(ROOT)} OMP_NUM_THREADS={JOBS.threads} "
    f"LTPA_GPU_SHARE={JOBS.gpu_share} LTPA_PYTHON={PYTHON} "
    f"LTPA_ARCHIVES={literal(os.pathsep.join(JOBS.archives))}; "
)


wildcard_constraints:
    dataset="|".join(PLAN.datasets),
    variant="|".join(PLAN.variants),
    source="|".join(PLAN.patch_sources),
    row="|".join(PLAN.twostream.rows),
    table="|".join(PLAN.tables),
    seed="[0-9]+",


def code(stage):
    """Source files that can change what a stage writes, relative to the working directory where they lie below it.

    So a checkout that is moved or copied together with its results does not look like other code.
    """
    here = Path.cwd()
    paths = module_closure(f"ltpa.stages.{stage}")
    return [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in paths
    ]


# Resources beside these: `cpus_per_task`, because Snakemake cuts a submitted job's threads to the cores of the machine it
# runs on itself, and a scheduler should be asked for what the job uses.


def grown(amount):
    """A request that grows with the attempts: a job that ran out of memory or time gets more of it."""
    return lambda wildcards, attempt: amount * min(attempt, JOBS.max_growth)


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
FIGURES = views.figure_files(PLAN)
GALLERY = f"{RESULTS}/figures/paper/index.json"


def gallery_files(suffix):
    """The figures of images and maps in one format."""
    return [
        str(layout.gallery_path(PLAN.results, name, suffix))
        for name in gallery.gallery_spec(PLAN).figures
    ]
