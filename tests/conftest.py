"""What all tests share: the long files come first, so that no core is left with one of them at the end."""

import gc
from pathlib import Path

import pytest

LONG = ("cluster", "workflow", "reliability", "docs")  # folders whose files take from half a minute to minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long folders first; pytest-xdist keeps this order of files with --no-loadscope-reorder."""
    folders = [*LONG, "unit"]
    items.sort(key=lambda item: folders.index(Path(item.path).relative_to(Path(__file__).parent).parts[0]))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through thousands of collected tests again and again."""
    gc.collect()
    gc.freeze()
