"""What the reliability tests share: a server of training processes, data, and one unbroken run to compare with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainings import Server, copy_data, make_data, model_hash, small_spec


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that holds the dataset alone."""
    folder = tmp_path_factory.mktemp("data") / "results"
    make_data(folder)
    return folder


@pytest.fixture(scope="session")
def unbroken(server: Server, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the network that a training leaves which nothing disturbs."""
    results = copy_data(data, tmp_path_factory.mktemp("unbroken") / "results")
    child = server.train(small_spec(), results)
    assert child.wait() == 0, child.output.read_text()
    return model_hash(results, small_spec())
