"""The command line: one subcommand per stage, and commands that look at what is there.

Each subcommand imports what it needs when it runs, so that starting any of them stays cheap.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from ltpa.cli import data, jobs, pictures, tools, views
from ltpa.cli.options import group
from ltpa.core.errors import LtpaError
from ltpa.core.text import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; expected errors print one line and nothing else."""
    options = _parser().parse_args(arguments)
    _print_warnings()
    try:
        options.run(options)
    except LtpaError as error:
        print(f"ltpa: error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    return 0


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, with names from outside made harmless."""
        return printable(super().formatMessage(record))


def _print_warnings() -> None:
    """Send what the package warns of to the terminal; its notes go to the log of a training alone."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OneLine("ltpa: %(message)s"))
    logging.basicConfig(handlers=[handler])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ltpa", description=__doc__.splitlines()[0] if __doc__ else None)
    command = group(parser)
    for part in (jobs, views, pictures, data, tools):
        part.add_commands(command)
    return parser
