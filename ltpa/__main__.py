"""`python -m ltpa`, and the command `ltpa`."""

import sys
from collections.abc import Sequence

from ltpa.runtime.stopping import INTERRUPTED, back_to_the_queue, leaving_on_request


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
        back_to_the_queue(leaving.code)
        raise
    back_to_the_queue(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
