"""The state folders of trainings: what a folder's key stands for, and whether a run is finished under it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from ltpa.core import layout
from ltpa.core.artefacts import files_of, intact
from ltpa.core.errors import RecordError
from ltpa.core.hashing import digest
from ltpa.core.records import Record, read_record


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything that affects the result of one training; equal identities end with equal bits.

    Attributes:
        dataset, variant, seed: which run it is.
        config_hash: of the `TrainSpec`: architecture, recipe, device kind, threads.
        data_hash, code_hash: of the prepared arrays, and of the code that trains.
        start: what is recorded of the network it starts from; None for random weights.
        torch, numpy: versions of the library that computes, and of the one that draws orders and augmentations.
        device: the processor's kind, or the GPU's model.
    """

    dataset: str
    variant: str
    seed: int
    config_hash: str
    data_hash: str
    code_hash: str
    start: dict[str, str] | None
    torch: str
    numpy: str
    device: str

    @property
    def key(self) -> str:
        """Name of the state folder."""
        return digest(dataclasses.asdict(self))

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
            record.libraries.get("torch", ""),
            record.libraries.get("numpy", ""),
            record.device,
        )

    def to_json(self, **more: Any) -> str:
        """As text for `run.json`, with whatever else readers of the folder should know."""
        return json.dumps({**dataclasses.asdict(self), **more}, indent=1) + "\n"


def is_finished(folder: Path, identity: Identity, failed_too: bool) -> bool:
    """Whether `folder` holds whole artefacts of the training `identity`; with `failed_too` also one that diverged."""
    try:
        record = read_record(folder / layout.RECORD)
        return (
            Identity.of(record) == identity
            and (record.status == "ok" or failed_too)
            and {layout.MODEL, layout.HISTORY} <= files_of(record).keys()
            and intact(folder, record)
        )
    except (RecordError, OSError):
        return False
