"""How far a training has come, how fast it goes, and how long it will take."""

import dataclasses
import time

INTERVAL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """A training at one moment.

    Attributes:
        epoch, epochs: the epoch it is in, counted from 1, and how many there are.
        step, steps: steps done in this epoch, and steps of an epoch.
        loss: mean loss of the epoch so far.
        error_pct: training error of the epoch so far, in percent; NaN where nothing is classified.
        images_per_second: training images since the process started on them, evaluation and saving included.
        seconds_left: at this rate.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    error_pct: float
    images_per_second: float
    seconds_left: float


class Meter:
    """Counts steps and clocks them. The first step, which may compile, is left out of the rate."""

    def __init__(self) -> None:
        self._steps = 0
        self._started = self._told = time.monotonic()

    def count(self) -> bool:
        """Note one step; true when `INTERVAL_SECONDS` have passed since the last time it was."""
        now = time.monotonic()
        if self._steps == 0:
            self._started = now
        self._steps += 1
        if now - self._told < INTERVAL_SECONDS:
            return False
        self._told = now
        return True

    def steps_per_second(self) -> float:
        """Since the first step; 0 where there was no second one yet."""
        elapsed = time.monotonic() - self._started
        return (self._steps - 1) / elapsed if self._steps > 1 and elapsed > 0 else 0.0
