"""The command line: one subcommand per stage, and commands that look at what is there.

Each subcommand imports what it needs when it runs, so that starting any of them stays cheap.
"""

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ltpa.cli import data, jobs, listing, pictures, tools, verify, views
from ltpa.cli.options import Command
from ltpa.core.declared import near_matches
from ltpa.core.errors import DiskFullError, LtpaError
from ltpa.core.files import FULL
from ltpa.core.text import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; expected errors print one line and nothing else.

    Without arguments it prints its help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, names = _parser()
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in names:
        parser.error(f"there is no command {words[0]!r}; {near_matches(words[0], names)}")
    options = parser.parse_args(words)
    _print_warnings()
    try:
        with _output_that_fits():
            options.run(options)
    except LtpaError as error:
        print(f"ltpa: error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        where = printable(error.filename or "a file")
        print(
            f"ltpa: error: {where}: {error.strerror}; it is closed to this user: ask its owner, or work in a folder of "
            "your own",
            file=sys.stderr,
        )
        return LtpaError.exit_code
    except BrokenPipeError:
        return 0
    return 0


@contextlib.contextmanager
def _output_that_fits() -> Iterator[None]:
    """Say in one line where what is printed does not fit on the disk that it is sent to.

    Raises:
        DiskFullError: it does not.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (*FULL, errno.EPIPE):
            raise
        try:
            sys.stdout.flush()
        except OSError:  # what waits in the buffer would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in FULL:
            raise
        where = error.filename or "what is printed, or a temporary file"
        raise DiskFullError(
            f"{where}: cannot write ({error.strerror}); free space and run the same command again"
        ) from error


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


class _Version(argparse.Action):
    """Prints package version and commit; git is asked only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ltpa.core.provenance import code_version

        print(f"ltpa {code_version()}")
        parser.exit()


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    parser = argparse.ArgumentParser(
        prog="ltpa",
        usage="ltpa [--version] COMMAND ...",
        description="A reproducible benchmark of trainable attention in image classifiers.\n"
        "`ltpa COMMAND --help` explains a command; `snakemake` runs the benchmark.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print version and commit")
    command = Command(parser)
    for part in (listing, views, verify, tools, pictures, data, jobs):
        part.add_commands(command)
    return parser, command.names
