"""The benchmark as a DAG: `snakemake all_tables`, or any single table by its name."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.19")

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

if "scale" not in config:

    configfile: str(ROOT / "config" / "config.yaml")


include: "workflow/rules/common.smk"


rule all_tables:
    default_target: True
    input:
        TABLE_FILES,
        CHECKS,
        TRACKING,
        FIGURES,
        GALLERY,


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/patches.smk"
include: "workflow/rules/twostream.smk"
include: "workflow/rules/views.smk"
