"""Progress of a transfer: a bar on a terminal, else a line every few seconds; both with rate and time left."""

import sys
import time
from typing import Any

_EVERY = 5.0  # seconds between lines


class TransferProgress:
    """Shows how far one file is. `name` stands before everything; nothing is shown unless `visible`."""

    def __init__(self, name: str, visible: bool = True) -> None:
        self.name, self.visible = name, visible
        self._bar: Any = None
        self._total: int | None = None
        self._start = self._done = 0
        self._began = self._said = 0.0

    def begin(self, done: int, total: int | None) -> None:
        """A transfer starts (again) at byte `done` of `total`, or of an unknown number."""
        self.end()
        self._start, self._done, self._total = done, done, total
        self._began = self._said = time.monotonic()
        if self.visible and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self.name, initial=done, total=total, unit="B", unit_scale=True, unit_divisor=1000, leave=False
            )

    def advance(self, count: int) -> None:
        """`count` more bytes have arrived."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            self.note(self._line())

    def note(self, text: str) -> None:
        """Print one line without breaking the bar."""
        if not self.visible:
            return
        line = f"{self.name}: {text}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self) -> str:
        rate = (self._done - self._start) / (time.monotonic() - self._began)
        speed = f"{rate / 1e6:.1f} MB/s"
        if self._total is None:
            return f"{self._done / 1e6:.1f} MB, {speed}"
        share = 100 * self._done / self._total
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "stalled"
        return f"{self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB ({share:.0f} %), {speed}, {left}"
