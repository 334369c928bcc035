"""The state folders of trainings: what a folder's key stands for, where in it each kind of processor saves its states,
and whether a run is finished under it.
"""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any, Self

from ltpa.core import layout
from ltpa.core.artefacts import files_of, intact
from ltpa.core.errors import RecordError
from ltpa.core.files import write_text
from ltpa.core.hashing import digest
from ltpa.core.provenance import COMPUTING
from ltpa.core.records import Record, read_record
from ltpa.runtime import checkpoint
from ltpa.training.journal import ABOUT, read_about

_LOG = logging.getLogger(__name__)
_STATES = "processor-"  # and a part of the hash of its kind


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything that affects the result of one training; equal identities end with equal bits.

    The kind of processor is a circumstance and nothing that is asked for: a training that is finished is so everywhere,
    and one lock guards it. Its saved states are apart.

    Attributes:
        dataset, variant, seed: which run it is.
        config_hash: of the `TrainSpec`: architecture, recipe, device kind, threads.
        data_hash, code_hash: of the prepared arrays, and of the code that trains.
        start: what is recorded of the network it starts from; None for random weights.
        libraries: versions of those that compute.
        device: `cpu`, or the GPU's model.
        processor: its kind.
    """

    dataset: str
    variant: str
    seed: int
    config_hash: str
    data_hash: str
    code_hash: str
    start: dict[str, str] | None
    libraries: dict[str, str]
    device: str
    processor: str

    @property
    def key(self) -> str:
        """Name of the state folder, the same for all kinds of processors."""
        return digest({**dataclasses.asdict(self), "processor": ""})

    @classmethod
    def of(cls, record: Record) -> Self:
        """The identity of the training that a record tells of."""
        return cls(
            record.dataset,
            record.variant,
            record.seed,
            record.config_hash,
            record.data_hash,
            record.code_hash,
            record.extra.get("start"),
            {name: version for name, version in record.libraries.items() if name in COMPUTING},
            record.device,
            record.processor,
        )

    def to_json(self, **more: Any) -> str:
        """As text for `run.json`, with whatever else readers of the folder should know."""
        return json.dumps({**dataclasses.asdict(self), **more}, indent=1) + "\n"


def saved_states(folder: Path, identity: Identity) -> Path:
    """The folder of this kind of processor's saved states, within the state folder of the training `identity`.

    Where there are none, and states of another kind are, a line in the log says so: the training begins anew, for one
    that goes on elsewhere ends with bits that neither kind gives. The others stay until the training is finished, so
    that it can go on where they were saved.
    """
    own = folder / f"{_STATES}{digest(identity.processor)[:12]}"
    write_text(own / ABOUT, identity.to_json())
    others = [each for each in sorted(folder.glob(f"{_STATES}*")) if each != own and checkpoint.has_states(each)]
    if others and not checkpoint.has_states(own):
        saved_on = "; ".join(str((read_about(other) or {}).get("processor", "unknown")) for other in others)
        _LOG.warning(
            "%s on %s, seed %d: saved on another kind of processor (%s) than this one (%s), so the training begins "
            "anew; the states stay in %s, and the same command goes on with them there",
            *(identity.variant, identity.dataset, identity.seed, saved_on, identity.processor, folder),
        )
    return own


def clear_states(folder: Path) -> None:
    """Remove the saved states of a finished training, whatever processors they are of."""
    for each in folder.glob(f"{_STATES}*"):
        shutil.rmtree(each)


def is_finished(folder: Path, identity: Identity, failed_too: bool) -> bool:
    """Whether `folder` holds whole artefacts of the training `identity`; with `failed_too` also one that diverged."""
    try:
        record = read_record(folder / layout.RECORD)
        return (
            Identity.of(record).key == identity.key
            and (record.status == "ok" or failed_too)
            and {layout.MODEL, layout.HISTORY} <= files_of(record).keys()
            and intact(folder, record)
        )
    except (RecordError, OSError):
        return False
