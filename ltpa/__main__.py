"""`python -m ltpa`, and the command `ltpa`."""

import signal
import sys
from collections.abc import Sequence

from ltpa.core.stopping import INTERRUPTED, LEAVING, REQUEUE, leaving_on_request


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line in a process of its own, which a signal may ask to leave from its first moment on."""
    try:
        with leaving_on_request():
            from ltpa.cli import main

            code = main(arguments)
    except KeyboardInterrupt:
        print("ltpa: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as leaving:
        _back_to_the_queue(leaving.code)
        raise
    _back_to_the_queue(code)
    for number in LEAVING:  # what was asked for is done: dying now would only hide it
        signal.signal(number, signal.SIG_IGN)
    return code


def _back_to_the_queue(code: int | str | None) -> None:
    """Requeue the job of a command that was asked to leave, where SLURM preempts it."""
    if code == REQUEUE:
        from ltpa.core.scheduler import requeue_if_preempted

        if requeue_if_preempted():
            print("ltpa: preempted; SLURM starts the job again under its number", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run())
