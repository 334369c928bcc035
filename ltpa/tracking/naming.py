"""Names inside the MLflow store. Writer and verification must spell them alike, so they are spelled here alone."""

import re
from typing import Any

ARTEFACTS = "mlruns"  # folder beside the database: below it stage, run id, `artifacts`
TAG_KEY = "ltpa.key"
TAG_SEAL = "ltpa.record_sha256"
_REFUSED = re.compile(r"[^A-Za-z0-9_\-. :/]")


def experiment_name(scale: str, stage: str) -> str:
    """One experiment per scale and stage."""
    return f"ltpa/{scale}/{stage}"


def run_key(stage: str, dataset: str, variant: str, seed: Any = None) -> str:
    """What a run is found by again; without a seed it names the parent run of the seeds."""
    parts = [stage, dataset, variant]
    return "/".join(parts if seed is None else [*parts, f"seed-{seed}"])


def metric_key(name: str, target: str, condition: str) -> str:
    """A metric's name in MLflow, empty parts left out: `fooling_rate_pct/cub200/eps:1`.

    MLflow refuses most punctuation: `=` becomes a colon, everything else it refuses an underscore.
    """
    return clean("/".join(filter(None, (name, target, condition))))


def clean(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced."""
    return _REFUSED.sub("_", name.replace("=", ":"))
