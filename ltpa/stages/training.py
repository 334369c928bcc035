"""What all kinds of training share: a network per seed, its state folder, its lock, its artefacts, the record last."""

import abc
import contextlib
import csv
import dataclasses
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ltpa.core import layout
from ltpa.core.code import code_hash
from ltpa.core.errors import ConfigError, MemoryFullError, ModelError, TrainingError
from ltpa.core.files import remove_drafts, write_text
from ltpa.core.hashing import sha256_file
from ltpa.core.per_image import save_hits, save_logits
from ltpa.core.provenance import computing_libraries, processor
from ltpa.core.records import Metric, read_record
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.models.base import AttentionClassifier
from ltpa.models.store import check_savable, load
from ltpa.runtime.lock import exclusive_folder
from ltpa.runtime.progress import Progress
from ltpa.runtime.stopping import Stopped, StopRequest
from ltpa.stages.common import make_record, save_record, trained_network
from ltpa.stages.device import compute_device, describe_device
from ltpa.stages.state import Identity, clear_states, is_finished, saved_states
from ltpa.training.journal import ABOUT, Journal
from ltpa.training.loop import Diverged, EpochRow, Interrupted, Loop, Watch
from ltpa.training.memory import is_out_of_memory

TEST_ERROR = "test_error_pct"


class CannotStart(TrainingError):
    """The network to start from diverged, and so this one cannot be had either."""


@dataclasses.dataclass(frozen=True)
class Watcher:
    """What is called as a training goes on: after each finished epoch, and about once a second; both with the seed."""

    epoch: Callable[[int, EpochRow], None] = lambda seed, row: None
    progress: Callable[[int, Progress], None] = lambda seed, progress: None
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Ready:
    """A training that may begin.

    Attributes:
        trainer: the loop, whose `watch` is still to be set.
        begin: called before the first step, and before a saved state is taken up.
        save: writes the network to a path.
        metrics: what the record says of a run that went well, from its history.
        right: from what the trainer kept of the test images (`Loop.test_logits`) which of them are right, (N,) bool.
        extra: what else the record says.
    """

    trainer: Loop
    save: Callable[[Path], None]
    metrics: Callable[[list[EpochRow]], list[Metric]]
    right: Callable[[np.ndarray], np.ndarray]
    extra: dict[str, Any]
    begin: Callable[[], None] = lambda: None


class TrainingJob(abc.ABC):
    """The trainings of one call: the same network for several seeds.

    Args:
        spec: what is trained.
        recipe: its recipe, read.
        results: folder of the scale.
        stop: asked after each step; when it says so, state is saved and `Stopped` raised.
        tolerate_failure: write a `failed` record (and the network as it ended) for a diverged run instead of raising,
            so that tables can name it.
        watcher: called with epochs, progress, and what is waited for.
    """

    stage: ClassVar[str] = "train"
    module: ClassVar[str] = "ltpa.stages.train"

    def __init__(
        self,
        spec: TrainSpec,
        recipe: Any,
        results: Path,
        stop: StopRequest | None = None,
        tolerate_failure: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        self.spec, self.recipe, self.results, self.stop = spec, recipe, Path(results), stop or StopRequest()
        self.tolerate_failure, self.watcher = tolerate_failure, watcher or Watcher()
        self.dataset = PreparedDataset.open(layout.data_dir(self.results, spec.dataset))
        self._got_further = False

    @abc.abstractmethod
    def start(self, seed: int) -> tuple[dict[str, str] | None, Any]:
        """What the network of a seed starts from besides the spec: facts for identity and record, and it itself."""

    @abc.abstractmethod
    def make_ready(
        self, seed: int, name: str, device: torch.device, state: Path, identity: Identity, given: Any
    ) -> Ready:
        """The training of one seed; `given` is what `start` gave. Asks `check` between its pieces."""

    def start_facts(self, seed: int) -> dict[str, str] | None:
        """Which network the spec says to start from, for the record: `dataset`, `variant`, `model_sha256`, `failed`
        (empty, or why); None for random weights."""
        start = self.spec.start
        if start is None:
            return None
        source = trained_network(self.results, start["dataset"], start["variant"], seed, start["training"])
        return {
            "dataset": start["dataset"],
            "variant": start["variant"],
            "model_sha256": source.extra["model_sha256"],
            "failed": source.reason,
        }

    def source(self, start: Mapping[str, str] | None, seed: int) -> AttentionClassifier:
        """The network of `start_facts`, as it is.

        Raises:
            ModelError: the spec names none, or its file is not the one in its record.
        """
        if start is None:
            raise ModelError(f"{self.spec.variant}: starts from a trained network; its recipe's initialise names it")
        return load(
            self._source_path(start, seed), expect_variant=start["variant"], expect_sha256=start["model_sha256"]
        )

    def refuse_failed(self, start: Mapping[str, str] | None, seed: int) -> None:
        """Raise `CannotStart` where the training of that network failed."""
        if start and start["failed"]:
            path = self._source_path(start, seed)
            raise CannotStart(f"{path}: cannot start from this network, its training failed: {start['failed']}")

    def _source_path(self, start: Mapping[str, str], seed: int) -> Path:
        return layout.run_dir(self.results, self.stage, start["dataset"], start["variant"], seed) / layout.MODEL

    def savable(self, seed: int, normalisation: str | None = None) -> dict[str, Any]:
        """What the file of a seed's network says of it.

        Raises:
            ModelError: no such file could be read again; better known before the training than after it.
        """
        spec = self.spec
        facts: dict[str, Any] = {
            "variant": spec.variant,
            "architecture": spec.architecture,
            "num_classes": spec.num_classes,
            "image_size": spec.image_size,
            "classes": self.dataset.classes,
            "extra": {"dataset": spec.dataset, "seed": seed, "spec": spec.hash()},
        }
        check_savable(normalisation, **facts)
        return facts

    def run(self, seeds: Sequence[int]) -> None:
        """Train the network of each seed and write its artefacts, the record last.

        A seed whose artefacts are there already, from the same everything, is left as it is. While another process
        trains the same network, this one waits, and then finds it finished.

        Raises:
            LtpaError: a GPU is asked for and there is none.
            Diverged: the loss stopped being finite.
            TrainingError: the training of the network to start from failed.
            MemoryFullError, DiskFullError: not enough memory or disk; what was saved is intact.
            ConfigError: the time limit does not even suffice to get ready.
            Stopped: `stop` said so; the same call goes on.
        """
        spec = self.spec
        with compute_device(spec.device, spec.threads, self._check_stop) as device:
            for seed in seeds:
                self._train(seed, device)

    def _check_stop(self) -> None:
        """End a wait if the job should stop."""
        self.stop.check(f"{self.spec.variant} on {self.spec.dataset}")

    def check(self, name: str) -> None:
        """Stop getting ready if the job should stop."""
        if self.stop() and self.stop.received is None and not self._got_further:
            raise ConfigError(
                f"{name}: the time limit is over before the first step, and would be each time; "
                "give --max-seconds a larger number"
            )
        self.stop.check(name)

    def _train(self, seed: int, device: torch.device) -> None:
        """Train the network of one seed, or find it trained."""
        spec = self.spec
        name = f"{spec.variant} on {spec.dataset}, seed {seed}"
        facts, given = self.start(seed)
        identity = Identity(
            spec.dataset,
            spec.variant,
            seed,
            spec.hash(),
            self.dataset.data_hash,
            code_hash([self.module, *spec.code]),
            facts,
            computing_libraries(),
            describe_device(device),
            processor(),
        )
        state = layout.state_dir(self.results, self.stage, identity.key)
        folder = layout.run_dir(self.results, self.stage, spec.dataset, spec.variant, seed)
        with exclusive_folder(
            state, lambda holder: self.watcher.say(f"waiting: {holder} trains {name}"), self._check_stop
        ):
            remove_drafts(folder)
            if is_finished(folder, identity, self.tolerate_failure):
                self.watcher.say(f"{name}: trained already ({folder / layout.RECORD})")
            else:
                write_text(state / ABOUT, identity.to_json(scale=spec.scale, recipe=spec.recipe))
                self._run(seed, name, device, identity, state, given, folder)
                self._got_further = True
            if read_record(folder / layout.RECORD).status == "ok":  # else the last good state is worth a look
                clear_states(state)

    def _run(
        self, seed: int, name: str, device: torch.device, identity: Identity, state: Path, given: Any, folder: Path
    ) -> None:
        started = time.perf_counter()
        self.check(name)
        training = self.make_ready(seed, name, device, saved_states(state, identity), identity, given)
        trainer, reason = training.trainer, ""
        with Journal(state, trainer.stepper.images_per_epoch) as journal:

            def on_epoch(row: EpochRow) -> None:
                journal.epoch(row)
                self.watcher.epoch(seed, row)

            def on_progress(progress: Progress) -> None:
                journal.progress(progress)
                self.watcher.progress(seed, progress)

            trainer.watch = Watch(self.stop, on_epoch, journal.start, on_progress)
            ready = time.perf_counter()
            try:
                training.begin()
                trainer.run()
            except Interrupted as error:
                raise Stopped(str(error), self.stop.exit_code) from error
            except (Diverged, CannotStart) as error:
                if not self.tolerate_failure:
                    raise
                reason = str(error)
            trained = time.perf_counter()
            training.save(folder / layout.MODEL)
            write_text(folder / layout.HISTORY, _history_csv(trainer))
            around = ready - started + time.perf_counter() - trained
            record = make_record(
                self.module,
                self.spec,
                seed,
                metrics=[] if reason else training.metrics(trainer.history),
                data_hash=self.dataset.data_hash,
                device=identity.device,
                seconds=around + sum(row.seconds for row in trainer.history),
                reason=reason,
                extra={
                    **training.extra,
                    "start": identity.start,
                    "model_sha256": sha256_file(folder / layout.MODEL),
                    "history_sha256": sha256_file(folder / layout.HISTORY),
                    **_keep(folder, trainer, training.right),
                },
            )
            save_record(self.results, record, [self.module, *self.spec.code])


def _keep(folder: Path, trainer: Loop, right: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Write what the network says of each test image into `folder`, and give what the record must say of it."""
    logits = trainer.test_logits().numpy()
    hits = {(TEST_ERROR, ""): right(logits)} if len(logits) else {}
    return {"logits": save_logits(folder, logits), "hits": save_hits(folder, hits)}


@contextlib.contextmanager
def memory_for_data(name: str, images: int, size: int, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory within the block into one line about `images` images of `size` bytes in all."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryFullError(
            f"{name}: {images} images do not fit into the memory of {describe_device(device)} ({size} bytes); "
            "give the training the device alone (jobs.gpu_share: 1), or a larger device"
        ) from error


def _history_csv(trainer: Loop) -> str:
    """The history as CSV text; cells that were not measured are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(trainer.row_type)])
    for row in trainer.history:
        values = dataclasses.astuple(row)
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    return stream.getvalue()
