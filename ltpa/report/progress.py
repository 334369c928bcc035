"""Progress of long work: a bar on a terminal, one line per epoch in a log file."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ltpa.runtime.progress import Progress
    from ltpa.training.loop import EpochRow


class TrainingProgress:
    """Shows a training. `title` names the run, `epochs` its length.

    On a terminal a bar with epoch, loss, training and test error, images per second and time left moves about once a
    second; elsewhere each finished epoch is one line.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.epochs = title, epochs
        self._bar: Any = None
        self._seed: int | None = None
        self._rate = self._left = 0.0
        self._test = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """Print a line about the run beside its bar."""
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def progress(self, seed: int, progress: "Progress") -> None:
        """Show where one seed's run stands within its epoch."""
        self._rate, self._left = progress.images_per_second, progress.seconds_left
        if sys.stderr.isatty():
            done = progress.epoch - 1 + progress.step / progress.steps
            error = "" if progress.error_pct != progress.error_pct else f", train {progress.error_pct:.1f} %"  # NaN
            self._show(seed, done, f"loss {progress.loss:.3f}{error}")

    def epoch(self, seed: int, row: "EpochRow") -> None:
        """Show a finished epoch of one seed's run."""
        text, test = row.trained(), row.tested()
        self._test = test or self._test
        if sys.stderr.isatty():
            self._show(seed, row.epoch, text)
            return
        print(
            f"{self.title}, seed {seed}: epoch {row.epoch}/{self.epochs}, lr {row.lr:.4g}, {text}{test}"
            f"{self._pace()}, {row.seconds:.1f} s",
            flush=True,
        )

    def _pace(self) -> str:
        return f", {self._rate:.0f} images/s, {_clock(self._left)} left" if self._rate else ""

    def _show(self, seed: int, done: float, text: str) -> None:
        if seed != self._seed:
            self._next_bar(seed)
        self._bar.set_postfix_str(text + self._test + self._pace(), refresh=False)
        self._bar.n = round(done, 2)
        self._bar.refresh()

    def _next_bar(self, seed: int) -> None:
        from tqdm import tqdm

        if self._bar is not None:
            self._bar.close()
        layout = "{desc}: {percentage:3.0f}% |{bar:20}| epoch {n:g}/{total}, {elapsed}, {postfix}"
        self._bar = tqdm(total=self.epochs, desc=f"{self.title}, seed {seed}", bar_format=layout)
        self._seed, self._test = seed, ""


def _clock(seconds: float) -> str:
    """A duration as `1:02:03` or `2:03`; a dash where it is not known."""
    if not 0 <= seconds < 1e9:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
