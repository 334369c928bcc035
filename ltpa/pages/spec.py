"""The spec of the job that writes the report."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from ltpa.tables.spec import ViewSpec

ASSETS = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSpec(ViewSpec):
    """Write the report of a scale; `records` are all result records of its configuration.

    Attributes:
        comparable: whether this scale's numbers may be compared with the paper's.
        note: what the scale changes about networks and training; may be empty.
        seeds: the seeds every network is trained with.
        labels: variant to the title of its networks.
        standins: concrete dataset to title, for those that play a role instead of being the paper's dataset.
        tables: the specs of the tables (`TableSpec`) as plain data, in the order of the configuration.
        figures: folders of pictures with an index, relative to the folder of the scale.
        configfile: what the commands on the pages say after `--configfile`; empty for the default configuration.
        max_error_of_chance: see `ltpa.core.learned.Limits`.
        assets: hash of templates, styles and scripts, which no hash of code covers.
    """

    comparable: bool
    note: str
    seeds: list[int]
    labels: dict[str, str]
    standins: dict[str, str]
    tables: list[dict[str, Any]]
    figures: list[str]
    configfile: str
    max_error_of_chance: dict[str, float]
    assets: str


def assets_hash() -> str:
    """SHA-256 over the names and contents of all templates, styles and scripts."""
    found = hashlib.sha256()
    for path in sorted(path for path in ASSETS.iterdir() if path.is_file()):
        found.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()
