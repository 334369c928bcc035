"""What others can follow of a training while it runs, in its state folder: three files that nothing depends on.

* `metrics.jsonl`, a line per finished epoch: the columns of the history, and images per second. It is the history: a
  resumed training cuts it back to the state it resumes from.
* `progress.json`, replaced every few seconds: epoch, step, loss, images per second, seconds left.
* `train.log`, lines with their time, only ever appended to.

A disk that is full or gone costs lines, never the training.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ltpa.core.errors import LtpaError
from ltpa.core.files import write_text
from ltpa.runtime.progress import Progress

if TYPE_CHECKING:
    from ltpa.training.loop import EpochRow

ABOUT = "run.json"  # written by the stage: which run the folder belongs to
METRICS = "metrics.jsonl"
PROGRESS = "progress.json"
LOG = "train.log"
PROGRESS_SECONDS = 5.0

_LOG = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    """Appends; where it cannot, nothing happens."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class Journal:
    """Writes the three files into `folder`; what the package logs meanwhile goes to its log too.

    Args:
        images: training images of an epoch, for the rate.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images
        self._rows: list[EpochRow] = []
        self._behind = False
        self._told = -math.inf
        self._progress: Progress | None = None
        self._log: _LogFile | None = None

    def __enter__(self) -> Self:
        try:
            self._log = _LogFile(self.folder / LOG, encoding="utf-8")
        except OSError as error:
            _LOG.warning("%s: no log is kept (%s)", self.folder / LOG, error.strerror)
            return self
        self._log.setFormatter(logging.Formatter("%(asctime)s [%(process)d] %(message)s"))
        logger = logging.getLogger("ltpa")
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write_progress()
        _LOG.info("%s", "finished" if error is None else " ".join(str(error).split()) or type(error).__name__)
        if self._log is not None:
            logging.getLogger("ltpa").removeHandler(self._log)
            with contextlib.suppress(OSError):  # lines that wait for a disk that is full
                self._log.close()

    def start(self, history: "Sequence[EpochRow]") -> None:
        """Begin with the epochs that are done: those of the state resumed from, or none."""
        self._rows = list(history)
        _LOG.info("resumed after epoch %d" if history else "started", *([len(history)] if history else []))
        self._rewrite()

    def epoch(self, row: "EpochRow") -> None:
        """Note a finished epoch."""
        self._rows.append(row)
        _LOG.info("epoch %d: %s", row.epoch, describe(row, self.images))
        if self._behind:
            self._rewrite()
            return
        try:
            with open(self.folder / METRICS, "a", encoding="utf-8") as stream:
                stream.write(self._line(row))
        except OSError as error:
            self._fell_behind(str(error.strerror))

    def progress(self, progress: Progress) -> None:
        """Replace `progress.json`, where the last time lies `PROGRESS_SECONDS` back."""
        self._progress = progress
        if time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._write_progress()

    def _write_progress(self) -> None:
        if self._progress is None:
            return
        self._told = time.monotonic()
        content = {**_plain(dataclasses.asdict(self._progress)), "pid": os.getpid(), "time": round(time.time())}
        try:
            write_text(self.folder / PROGRESS, json.dumps(content) + "\n")
        except LtpaError as error:
            _LOG.debug("%s", error)

    def _line(self, row: "EpochRow") -> str:
        content = {**dataclasses.asdict(row), "images_per_second": round(images_per_second(row, self.images), 3)}
        return json.dumps(_plain(content), allow_nan=False) + "\n"

    def _rewrite(self) -> None:
        try:
            write_text(self.folder / METRICS, "".join(map(self._line, self._rows)))
            self._behind = False
        except LtpaError as error:
            self._fell_behind(str(error))

    def _fell_behind(self, reason: str) -> None:
        self._behind = True
        _LOG.warning("%s: not written (%s); training goes on", self.folder / METRICS, reason)


def read_about(folder: Path) -> dict[str, Any] | None:
    """What the `run.json` of a state folder says; None where there is none that can be read."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The finished epochs of a state folder, as far as whole lines are there; none where there are no metrics."""
    try:
        text = (folder / METRICS).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except (OSError, ValueError):
        return []


def images_per_second(row: "EpochRow", images: int) -> float:
    """Training images per second of an epoch of `images`, its evaluation in the time."""
    return images / row.seconds if row.seconds else 0.0


def describe(row: "EpochRow", images: int) -> str:
    """An epoch in words."""
    return f"lr {row.lr:.4g}, {row.trained()}{row.tested()}, {images_per_second(row, images):.0f} images/s"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity, which JSON has not, as null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
