"""What verification found: lines for the terminal, and which files are to blame."""

import shlex
from collections.abc import Callable
from pathlib import Path

from ltpa.core.errors import LtpaError


class Findings:
    """Collects differences and says each once.

    Args:
        results: the folder of the scale.
        remake: the command that makes what is missing.
        say: prints each line.

    Attributes:
        count: lines that tell of something wrong.
        blamed: files that are missing, spoilt, or of another run; what was made from them is not compared.
    """

    def __init__(self, results: Path, remake: str, say: Callable[[str], None]) -> None:
        self.results, self.remake, self._say = results, remake, say
        self.count = 0
        self.blamed: set[Path] = set()
        self._skipped: list[str] = []

    def blame(self, path: Path, what: str, remedy: str | None = None) -> None:
        """Something is wrong with a file; the remedy is to make it anew unless another one is given.

        `what` may begin with a path of its own, and an empty remedy says that it names one.
        """
        if path in self.blamed:
            return
        self.blamed.add(path)
        self.count += 1
        where = "" if what.startswith(f"{self.results}/") else f"{path}: "
        self._say("; ".join(filter(None, (f"{where}{what}", self.anew(path) if remedy is None else remedy))))

    def blame_for(self, path: Path, error: LtpaError) -> None:
        """What reading a file said; the remedy that it names gives way to the command."""
        text, _, _ = str(error).rpartition("; ")
        self.blame(path, text or str(error))

    def tell(self, line: str) -> None:
        """Something is wrong that no single file is to blame for."""
        self.count += 1
        self._say(line)

    def missing(self, path: Path) -> None:
        """A file is not there."""
        self.blame(path, "missing, though the configuration wants it", f"`{self.remake}`")

    def anew(self, path: Path) -> str:
        """The command that makes a file anew."""
        return f"`rm {shlex.quote(str(path))} && {self.remake}`"

    def note(self, text: str) -> None:
        """Something that is worth a line and is not wrong."""
        self._say(f"note: {text}")

    def skip(self, what: str) -> None:
        """Something cannot be compared, since what it was made from is to blame."""
        self._skipped.append(what)

    def conclude(self) -> None:
        """Say what was not compared."""
        if self._skipped:
            names = ", ".join(self._skipped)
            self.note(f"not compared, for the sake of files named above: {names}; mend these and verify again")
