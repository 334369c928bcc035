"""Pages from templates, and the folder and archive that they are written to."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ltpa.core.files import atomic_path
from ltpa.core.text import printable
from ltpa.pages.spec import ASSETS

STYLE, SCRIPT = "style.css", "script.js"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can name: archives of equal pages have equal bytes


def environment() -> Environment:
    """Templates in which every text is escaped and printable, and every name must be known."""
    env = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else printable(value),
    )
    env.globals["zip"] = zip
    return env


class Site:
    """The files of a report, by path below its folder; `common` are names that every template may use."""

    def __init__(self, **common: Any) -> None:
        self.files: dict[str, bytes] = {}
        self._env = environment()
        self._env.globals.update(common)
        for name in (STYLE, SCRIPT):
            self.add(name, (ASSETS / name).read_bytes())

    def add(self, path: str, content: bytes) -> None:
        """Add a file."""
        self.files[path] = content

    def page(self, path: str, template: str, **context: Any) -> None:
        """Add the page that a template makes."""
        here = "../" * path.count("/")
        text = self._env.get_template(template).render(here=here, path=path, **context)
        self.add(path, text.encode())

    def write(self, folder: Path) -> None:
        """Write all files into `folder`; files of an earlier report that are not among them are removed."""
        for path, content in self.files.items():
            with atomic_path(folder / path) as temporary:
                temporary.write_bytes(content)
        for old in sorted(folder.rglob("*"), reverse=True):
            if old.is_dir():
                if not any(old.iterdir()):
                    old.rmdir()
            elif old.relative_to(folder).as_posix() not in self.files:
                old.unlink()


def archive(files: Mapping[str, bytes], folder: str) -> bytes:
    """A zip of `files` below `folder`, the same bytes whenever it is made."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{path}", _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            packed.writestr(entry, files[path])
    return stream.getvalue()
