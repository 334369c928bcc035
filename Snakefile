"""The benchmark as a DAG: `snakemake all_tables`, or any single table by its name."""

import sys
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.19")

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from ltpa.runtime.workflow import guard

guard(workflow)

if "scale" not in config:

    configfile: str(ROOT / "config" / "config.yaml")


from ltpa.core import layout
from ltpa.plan.config import parse_config, read_config_file
from ltpa.core.errors import LtpaError
from ltpa.plan import Plan, gallery, jobs, views
from ltpa.plan.products import behind_table, products
from ltpa.plan.rules import Rules, literal
from ltpa.plan.summary import check_warnings
from ltpa.runtime.lost_jobs import extend_slurm_plugin

SOURCE = ", ".join(map(str, workflow.configfiles)) or "--config"
try:
    for path in workflow.configfiles:
        read_config_file(
            path
        )  # refuses equal keys, of which Snakemake's own loader takes the last
    PLAN = Plan(parse_config(config, SOURCE), SOURCE)
    RULES = Rules(PLAN)
except LtpaError as error:
    raise WorkflowError(str(error)) from None
RESULTS = str(PLAN.results)
JOBS = PLAN.config.jobs

extend_slurm_plugin()

# Under --sdm conda the job's own environment provides python; otherwise the interpreter that runs Snakemake does.
CONDA = any(
    str(method).endswith("conda")
    for method in workflow.deployment_settings.deployment_method
)
shell.prefix(
    RULES.environment("python" if CONDA else literal(sys.executable), package=ROOT)
)


wildcard_constraints:
    dataset="|".join(PLAN.datasets),
    table="|".join(PLAN.tables),
    seed="[0-9]+",


# Jobs read their specs from files. They are written here and not while the DAG is built, so that a dry run writes none.
onstart:
    RULES.write_specs(
        job.params.spec for job in workflow.dag.needrun_jobs() if job.is_shell
    )


onsuccess:
    for line in check_warnings(PLAN):
        print(f"ltpa: warning: {line}", file=sys.stderr)


# All that the jobs declare, so that a deleted file is made anew: Snakemake looks for those alone that it is asked for.
rule all_tables:
    default_target: True
    input:
        products(PLAN),


include: "workflow/rules/data.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/views.smk"
include: "workflow/rules/pictures.smk"


# A table or a figure by its name: a rule for each that the command line asks for, so that the list of rules is the same
# whatever tables there are.
TARGETS = {
    **{name: partial(behind_table, PLAN, name) for name in PLAN.tables},
    **{
        name: partial(gallery.files, PLAN, name)
        for name in gallery.gallery_spec(PLAN).figures
    },
}
for asked in sorted(TARGETS.keys() & set(sys.argv)):

    rule:
        name:
            asked
        input:
            TARGETS[asked](),
