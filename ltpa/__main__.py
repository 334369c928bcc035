"""`python -m ltpa`, and the command `ltpa`."""

import signal
import sys
from collections.abc import Sequence

from ltpa.core.stopping import INTERRUPTED, LEAVING, leaving_on_request


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line in a process of its own, which a signal may ask to leave from its first moment on."""
    try:
        with leaving_on_request():
            from ltpa.cli import main

            code = main(arguments)
    except KeyboardInterrupt:
        print("ltpa: interrupted", file=sys.stderr)
        return INTERRUPTED
    for number in LEAVING:  # what was asked for is done: dying now would only hide it
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(run())
