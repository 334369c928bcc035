"""Progress of long work: a bar on a terminal, one line per epoch in a log file."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ltpa.training.engine import EpochRow


class TrainingProgress:
    """Shows each finished epoch. `title` names the run, `epochs` its length."""

    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.epochs = title, epochs
        self._bar: Any = None
        self._seed: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def epoch(self, seed: int, row: "EpochRow") -> None:
        """Show one epoch of one seed's run."""
        text = f"loss {row.train_loss:.3f}, train {row.train_error_pct:.1f} %, test {row.test_error_pct:.1f} %"
        if not sys.stderr.isatty():
            print(f"{self.title}, seed {seed}: epoch {row.epoch}/{self.epochs}, lr {row.lr:.4g}, {text}", flush=True)
            return
        if seed != self._seed:
            self._next_bar(seed)
        self._bar.set_postfix_str(text)
        self._bar.update(row.epoch - self._bar.n)

    def _next_bar(self, seed: int) -> None:
        from tqdm import tqdm

        if self._bar is not None:
            self._bar.close()
        self._bar = tqdm(total=self.epochs, desc=f"{self.title}, seed {seed}", unit="epoch")
        self._seed = seed
