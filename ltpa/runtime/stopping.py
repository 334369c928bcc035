"""Requests to stop: signals and a time limit, obeyed where work can be interrupted, enforced after a grace period."""

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from ltpa.core.errors import LtpaError
from ltpa.runtime.scheduler import requeue_if_preempted

GRACE_SECONDS = 8.0  # schedulers kill some ten seconds or more after they asked
REQUEUE = 75  # EX_TEMPFAIL: the same command, started again, goes on
INTERRUPTED = 130  # what shells expect after Ctrl-C
_Handler = Callable[[int, FrameType | None], None]

LEAVING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # how schedulers ask, and a connection that breaks off
SIGNALS = (*LEAVING, signal.SIGINT)


class Stopped(LtpaError):
    """Work was interrupted on request, and the same command resumes it; the exit code asks to be requeued."""

    exit_code = REQUEUE

    def __init__(self, message: str, exit_code: int = REQUEUE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether work should stop: true after a signal or `max_seconds`. Called where work can be interrupted."""

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
        """Raise `Stopped` if work should stop; `doing` names the interrupted work in the message."""
        if self():
            raise Stopped(f"{doing}: stopped ({self.reason}); the same command goes on with it", self.exit_code)


@contextlib.contextmanager
def stop_requests(max_seconds: float = math.inf, grace: float = GRACE_SECONDS) -> Iterator[StopRequest]:
    """Note the `SIGNALS` for the life of the block, instead of dying from them. For the main thread.

    The block asks the yielded request. If it has not ended `grace` seconds after a signal, because a single operation
    takes longer or the disk hangs, the process exits without it: whatever is saved by then was saved whole. A second
    SIGINT raises KeyboardInterrupt. SIGHUP stays ignored where it was (`nohup`).
    """
    request = StopRequest(max_seconds)
    with _watched(request, {number: _handler(request) for number in SIGNALS}, grace):
        yield request


@contextlib.contextmanager
def leaving_on_request(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Leave the block with exit code 75 as soon as one of the signals `LEAVING` comes. For the main thread.

    The handler raises SystemExit, so that what was half written is removed on the way out; after `grace` seconds the
    process exits in any case. While a module is imported it exits at once: libraries in C++ abort the process when an
    exception meets them as they load. A `stop_requests` inside the block takes the signals over while it lasts.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        drop_lost_terminal()
        tell(f"{signal.Signals(number).name}: stopped; the same command starts again")
        if importing(frame):
            _leave(REQUEUE)
        raise SystemExit(REQUEUE)

    # Afterwards what was asked for is done, or being left: dying of a further signal would only hide it.
    with _watched(StopRequest(), dict.fromkeys(LEAVING, leave), grace, afterwards=signal.SIG_IGN):
        yield


def back_to_the_queue(code: int | str | None) -> None:
    """Requeue the job of a command that leaves with `code` because it was asked to, where SLURM preempts it."""
    if code == REQUEUE and requeue_if_preempted():
        tell("preempted; SLURM starts the job again under its number")


def _leave(code: int) -> NoReturn:
    """End the process now, whatever it is doing."""
    back_to_the_queue(code)
    os._exit(code)


def tell(text: str) -> None:
    """Write a line to the terminal or log. Signal handlers must not print: what they interrupt may be printing."""
    with contextlib.suppress(OSError):
        os.write(2, f"ltpa: {text}\n".encode())


def drop_lost_terminal() -> None:
    """Send what is printed to nowhere if the terminal is gone: printing to it would end the process before its time."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), descriptor)


def importing(frame: FrameType | None) -> bool:
    """Whether the frame, or one that called it, is the import system's."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _watched(
    request: StopRequest,
    noted: dict[signal.Signals, _Handler],
    grace: float,
    afterwards: signal.Handlers | None = None,
) -> Iterator[None]:
    """Install handlers for the life of the block, and a watcher that enforces the grace period.

    Then the handlers of before come back, or `afterwards` in their place.
    """
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    ended = threading.Event()
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        noted = {number: handler for number, handler in noted.items() if number != signal.SIGHUP}
    watcher = threading.Thread(target=_watch, args=(request, reader, ended, grace, tuple(noted)), daemon=True)
    handlers = {number: signal.signal(number, handler) for number, handler in noted.items()}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler if afterwards is None else afterwards)
        os.write(writer, b"\0")  # wakes the watcher
        watcher.join()
        os.close(reader)
        os.close(writer)


def _handler(request: StopRequest) -> _Handler:
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        request.received = request.received or number  # the watcher may have been first
        interrupts += number == signal.SIGINT
        if number == signal.SIGHUP:
            drop_lost_terminal()
        if interrupts > 1:
            raise KeyboardInterrupt

    return note


def _watch(request: StopRequest, reader: int, ended: threading.Event, grace: float, numbers: tuple[int, ...]) -> None:
    """Wait for the first signal, then for the end of the block; exit when that takes longer than `grace`.

    The interpreter runs its signal handlers between operations only; the wake-up descriptor is written at once.
    """
    while not ended.is_set():
        select.select([reader], [], [])
        for number in os.read(reader, 64):
            if number not in numbers:
                continue
            request.received = request.received or number
            if not ended.wait(grace):
                code = INTERRUPTED if number == signal.SIGINT else REQUEUE
                tell(
                    f"{signal.Signals(number).name}: not done after {grace:g} s; leaving with what was last saved, the "
                    "same command goes on with it"
                )
                _leave(code)
