"""Train the prototypes of one patch extraction under the lock of its state folder, or use those that are trained."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.core import layout
from ltpa.core.files import write_text
from ltpa.core.patches import PatchSettings, PrototypeTraining
from ltpa.data.arrays import PreparedDataset
from ltpa.models.protopnet import PrototypeNetwork
from ltpa.runtime.lock import exclusive_folder
from ltpa.runtime.stopping import Stopped, StopRequest
from ltpa.stages.state import Identity, clear_states, saved_states
from ltpa.training.journal import ABOUT, Journal
from ltpa.training.loop import EpochRow, Interrupted
from ltpa.training.prototypes import PrototypeTrainer

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_STAGE = "patches"


def state_folder(results: Path, identity: Identity) -> Path:
    """Where the resumable state of a training of prototypes lies."""
    return layout.state_dir(results, _STAGE, identity.key)


def trained_prototypes(
    backbone: "AttentionClassifier",
    dataset: PreparedDataset,
    chosen: PrototypeTraining,
    settings: PatchSettings,
    identity: Identity,
    results: Path,
    stop: StopRequest,
    on_epoch: Callable[[int, EpochRow], None],
) -> tuple[PrototypeNetwork, list[EpochRow]]:
    """Prototypes over the trunk of `backbone`, trained on the training images, and the history of their training.

    What is saved is left in `state_folder`, that after the last pass, too: whatever follows may be cut off and done
    again without training anew. While another process trains the same prototypes, this one waits and takes them up.

    Raises:
        ConfigError: the dataset has one class only.
        TrainingError: the loss stopped being finite.
        MemoryFullError: a batch does not fit into memory.
        Stopped: `stop` said so; the same call goes on.
    """
    name = f"prototypes of {identity.variant} on {identity.dataset}, seed {identity.seed}"
    state = state_folder(results, identity)
    train = dataset.split("train")

    def say(holder: str) -> None:
        print(f"waiting: {holder} trains {name}", file=sys.stderr, flush=True)

    with exclusive_folder(state, say, lambda: stop.check(name)):
        write_text(state / ABOUT, identity.to_json())
        with Journal(state, len(train)) as journal:

            def note(row: EpochRow) -> None:
                journal.epoch(row)
                on_epoch(identity.seed, row)

            trainer = PrototypeTrainer(
                backbone,
                train.images,
                train.labels,
                len(dataset.classes),
                chosen,
                identity.seed,
                settings.grid,
                settings.level,
                saved_states(state, identity),
                identity.key,
                stop,
                journal.start,
                note,
                name,
            )
            try:
                return trainer.run(), trainer.history
            except Interrupted as error:
                raise Stopped(str(error), stop.exit_code) from error


def forget(state: Path) -> None:
    """Remove what was saved in a state folder, once nothing needs it any more."""
    if state.is_dir():
        with exclusive_folder(state):
            clear_states(state)
