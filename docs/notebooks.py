"""The tutorials as notebooks: `make docs` writes docs/_build/notebooks/*.ipynb from the pages docs/tutorial-*.md.

The pages are what is read, reviewed and tested; a notebook has the same text and code, without outputs.
"""

import sys
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def notebook(page: Path) -> nbformat.NotebookNode:
    """The notebook of a page: blocks of Python become cells, the outputs right after them are left out."""
    lines = page.read_text(encoding="utf-8").splitlines()
    cells, text, after_code = [], 0, False
    for token in MarkdownIt().parse("\n".join(lines)):
        if token.type == "fence" and token.level == 0 and token.map is not None:
            first, last = token.map
            is_code, is_output = token.info == "python", token.info == "" and after_code
            if is_code or is_output:
                if prose := "\n".join(lines[text:first]).strip():
                    cells.append(new_markdown_cell(prose))
                if is_code:
                    cells.append(new_code_cell(token.content.rstrip()))
                text = last
            after_code = is_code
        elif token.level == 0:
            after_code = False
    if prose := "\n".join(lines[text:]).strip():
        cells.append(new_markdown_cell(prose))
    for number, cell in enumerate(cells):
        cell["id"] = f"{page.stem}-{number}"  # the same bytes each time
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def main(folder: Path) -> None:
    """Write all notebooks into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted(Path(__file__).parent.glob("tutorial-*.md")):
        found = notebook(page)
        nbformat.validate(found)
        nbformat.write(found, folder / f"{page.stem}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
