"""Libraries that tests marked `libraries` compare with; none is among the dependencies."""

import importlib
from types import ModuleType

import pytest


def library(name: str) -> ModuleType:
    """The module called `name`; the test is skipped where it is not installed, or cannot be imported here.

    Some fail while they import torchvision, where that is built for other processors than torch.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")
