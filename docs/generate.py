"""Pages of the site that the package writes of itself: its commands, variants, datasets, protocols and tables."""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ltpa.core.files import write_text
from ltpa.core.text import markdown_text

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "readme", "CHANGELOG.md": "changelog", "results/README.md": "results"}  # and their names here


def write_reference(folder: Path) -> None:
    """Write the generated pages into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        *((name, _page_of_root(path)) for path, name in OUTSIDE.items()),
        ("commands", _commands()),
        ("variants", _variants()),
        ("datasets", _datasets()),
        ("protocols", _protocols()),
        ("tables", _tables()),
    ):
        write_text(folder / f"{name}.md", text)


def _page_of_root(path: str) -> str:
    """A Markdown page outside this folder, with its links as they are seen from the folder of generated pages."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for target, name in OUTSIDE.items():
        text = text.replace(f"]({target})", f"]({name}.md)")
    return re.sub(rf"\]\((?!#|[a-z]+:|(?:{'|'.join(OUTSIDE.values())})\.md)", "](../../", text).replace(
        "](../../docs/", "](../"
    )


def _commands() -> str:
    from ltpa.cli import _parser

    lines = ["# Command line", "", "What `ltpa COMMAND --help` says."]
    for name, parser in _subcommands(_parser()[0]):
        lines += ["", f"## ltpa {name}", "", "```text", parser.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _subcommands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{before}{name}", child
                yield from _subcommands(child, f"{before}{name} ")


def _variants() -> str:
    from ltpa.models.variants import declared_variants

    rows = [
        (f"`{name}`", variant.label, variant.architecture["family"], "" if variant.extension else "yes")
        for name, variant in declared_variants().items()
    ]
    return _page("Variants", ("name", "in the tables", "family", "in the papers"), rows)


def _datasets() -> str:
    from ltpa.data.registry import dataset_declaration, list_datasets

    keys = ("title", "plays", "type", "licence")
    rows = []
    for name in list_datasets():
        declared = dataset_declaration(name)
        rows.append((f"`{name}`", *(declared.get(key, "") for key in keys)))
    return _page("Datasets", ("name", *keys), rows)


def _protocols() -> str:
    from ltpa.protocols.registry import built_in, find

    lines = ["# Protocols", "", "Settings are keys under `protocols.NAME` of a configuration."]
    for name in built_in():
        protocol = find(name)
        lines += ["", f"## {name}", "", f"{protocol.title}: {markdown_text(protocol.about)}.", ""]
        lines += _table(
            ("setting", "default"),
            [
                (f"`{key}`", repr(field.get_default(call_default_factory=True)))
                for key, field in protocol.Settings.model_fields.items()
            ],
        )
        lines.append("")
        lines += _table(("metric", "what it is", "unit"), [(f"`{m.name}`", m.title, m.unit) for m in protocol.metrics])
    return "\n".join(lines) + "\n"


def _tables() -> str:
    from ltpa.tables.declaration import load_declarations

    rows = [(f"`{name}`", table.title, table.stage, table.paper) for name, table in load_declarations().items()]
    return _page("Tables", ("name", "title", "stage", "where from"), rows)


def _page(title: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join([f"# {title}", "", *_table(header, rows)]) + "\n"


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (str(cell) if str(cell).startswith("`") else markdown_text(str(cell)) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return lines
