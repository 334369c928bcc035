"""Pictures of networks' maps among the artefacts of their runs. Figures and store are made in any order."""

import json
from pathlib import Path

from ltpa.core import layout
from ltpa.tracking.naming import ARTEFACTS
from ltpa.tracking.rows import keep_artefact

_STAGES = ("train", "segmentation")


def keep_pictures(results: Path) -> None:
    """Have every picture that the figures drew of a network among the artefacts of its runs, as far as both are there.

    Raises:
        DiskFullError, LtpaError: the folder of artefacts cannot be written.
    """
    mapping = Path(results) / layout.TRACKING
    if not mapping.is_file():
        return
    for record, run_id in json.loads(mapping.read_text(encoding="utf-8")).items():
        run = layout.run_of(Path(results) / record)
        if run is None or run[0] not in _STAGES:
            continue
        picture = layout.overlay_path(results, *run[1:])
        if picture.is_file():
            keep_artefact(Path(results) / ARTEFACTS / run[0] / run_id / "artifacts", picture)
