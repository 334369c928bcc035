"""Requests to stop: signals and a time limit, obeyed where work can be cut, enforced after a grace period."""

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ltpa.core.errors import LtpaError

GRACE_SECONDS = 8.0  # schedulers kill some ten seconds or more after they asked
REQUEUE = 75  # EX_TEMPFAIL: the same command, started again, goes on
INTERRUPTED = 130  # what shells expect after Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(LtpaError):
    """Work was cut short on request, and the same command goes on with it; the exit code asks to be requeued."""

    exit_code = REQUEUE

    def __init__(self, message: str, exit_code: int = REQUEUE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether work should stop: true once a signal came or `max_seconds` went by. Called where work can be cut."""

    def __init__(self, max_seconds: float = math.inf) -> None:
        self._deadline = time.monotonic() + max_seconds
        self.received: int | None = None

    def __call__(self) -> bool:
        """Whether to stop now."""
        return self.received is not None or time.monotonic() > self._deadline

    @property
    def reason(self) -> str:
        """What asked: the signal's name, or the time limit."""
        return "time limit" if self.received is None else signal.Signals(self.received).name

    @property
    def exit_code(self) -> int:
        """What the process should exit with."""
        return INTERRUPTED if self.received == signal.SIGINT else REQUEUE

    def check(self, doing: str) -> None:
        """Raise `Stopped` if work should stop; `doing` is how its message calls the work that is cut."""
        if self():
            raise Stopped(f"{doing}: stopped ({self.reason}); the same command goes on with it", self.exit_code)


@contextlib.contextmanager
def stop_requests(max_seconds: float = math.inf, grace: float = GRACE_SECONDS) -> Iterator[StopRequest]:
    """Note SIGTERM, SIGUSR1 and SIGINT for the life of the block, in place of dying of them. For the main thread.

    The block asks the yielded request. If it has not ended `grace` seconds after a signal, because a single operation
    takes longer or the disk hangs, the process exits without it: whatever is saved by then was saved whole. A second
    SIGINT raises KeyboardInterrupt.
    """
    request = StopRequest(max_seconds)
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(request, reader, ended, grace), daemon=True)
    note = _handler(request)
    handlers = {number: signal.signal(number, note) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield request
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.write(writer, b"\0")  # wakes the watcher
        watcher.join()
        os.close(reader)
        os.close(writer)


def _handler(request: StopRequest) -> Callable[[int, FrameType | None], None]:
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        request.received = request.received or number  # the watcher may have been first
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt

    return note


def _watch(request: StopRequest, reader: int, ended: threading.Event, grace: float) -> None:
    """Wait for the first signal, then for the end of the block; exit when that takes longer than `grace`.

    The interpreter runs its signal handlers between operations only; the wake-up descriptor is written at once.
    """
    while not ended.is_set():
        select.select([reader], [], [])
        for number in os.read(reader, 64):
            if number not in SIGNALS:
                continue
            request.received = request.received or number
            if not ended.wait(grace):
                code = INTERRUPTED if number == signal.SIGINT else REQUEUE
                with contextlib.suppress(OSError, ValueError):
                    print(
                        f"ltpa: {signal.Signals(number).name}: not done after {grace:g} s; leaving with what was last "
                        "saved, the same command goes on with it",
                        file=sys.stderr,
                        flush=True,
                    )
                os._exit(code)
