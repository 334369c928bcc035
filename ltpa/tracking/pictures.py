"""Pictures of networks' maps among the artefacts of their runs. Figures and store are made in any order."""

import json
import re
from pathlib import Path

from ltpa.core import layout
from ltpa.tracking.naming import ARTEFACTS
from ltpa.tracking.rows import keep_artefact

_SHOWN = re.compile(rf"(?:.*/)?(train|segmentation)/([^/]+)/([^/]+)/seed-(\d+)/{re.escape(layout.RECORD)}")


def keep_pictures(results: Path) -> None:
    """Have every picture that the figures drew of a network among the artefacts of its runs, as far as both are there.

    Raises:
        DiskFullError, LtpaError: the folder of artefacts cannot be written.
    """
    mapping = Path(results) / layout.TRACKING
    if not mapping.is_file():
        return
    for record, run_id in json.loads(mapping.read_text(encoding="utf-8")).items():
        if not (shown := _SHOWN.fullmatch(record)):
            continue
        stage, dataset, variant, seed = shown.groups()
        picture = layout.overlay_path(results, dataset, variant, int(seed))
        if picture.is_file():
            keep_artefact(Path(results) / ARTEFACTS / stage / run_id / "artifacts", picture)
