"""The code blocks of the pages, and what the comments before them say of each.

A comment of HTML right before a block is not seen by readers:

    <!-- file: mine.yaml -->           the block is the content of this file
    <!-- append: config/x.yaml -->     the block stands at the end of this file
    <!-- part of: config/x.yaml -->    this file has the keys and values of the block
    <!-- not run: REASON -->           nothing of the block is run
    <!-- not run "TEXT": REASON -->    the commands of the block that contain TEXT are not run
"""

import dataclasses
import re
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NO_CODE = ("", "text")  # messages, diagrams, outputs
CODE = ("console", "csv", "python", "yaml")
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_MARK = re.compile(r'(file|append|part of|not run)(?: "([^"]+)")?: (.+)', re.DOTALL)
_PROMPT = re.compile(r"(?:\w+)?\$ +")


@dataclasses.dataclass
class Block:
    """A fenced block: its language, text and first line, where its text goes, what of it is not run and why."""

    page: Path
    line: int
    language: str
    text: str
    file: str = ""
    kind: str = ""  # `file`, `append` or `part of`
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)  # text of commands ("" all of them): reason
    output: str | None = None  # what a block of python prints, by the block right after it

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list["Command"]:
        """The commands of a block of the console, each with the output shown below it."""
        found: list[Command] = []
        for line in self.text.splitlines():
            if prompt := _PROMPT.match(line):
                found.append(Command(line[prompt.end() :], []))
            else:
                assert found, f"{self.where}: begins with an output"
                found[-1].output.append(line)
        for mark in self.not_run:
            chosen = [command for command in found if mark in command.text]
            assert chosen, f"{self.where}: no command with {mark!r}, which is marked as not run"
            for command in chosen:
                command.runs = False
        return found


@dataclasses.dataclass
class Command:
    """A line that a reader types, the lines that the page shows after it, and whether it is run."""

    text: str
    output: list[str]
    runs: bool = True


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    marks: list[str] = []
    after_python = False
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            marks += _COMMENT.findall(token.content)
        elif token.type == "fence" and token.info.startswith("{"):
            marks, after_python = [], False  # a directive of the site, such as a table of contents
        elif token.type == "fence":
            block = Block(page, token.map[0] + 1, token.info.strip(), token.content)
            for mark in marks:
                _apply(block, mark)
            if block.language in NO_CODE and after_python:
                found[-1].output = block.text
            found.append(block)
            marks, after_python = [], block.language == "python"
        else:
            marks, after_python = [], False
    return found


def _apply(block: Block, mark: str) -> None:
    match = _MARK.fullmatch(mark)
    assert match, f"{block.where}: the comment before it is none of file, append, part of, not run: {mark!r}"
    kind, text, value = match.groups()
    if kind == "not run":
        block.not_run[text or ""] = value
    else:
        block.file, block.kind = value, kind
