"""What the reliability tests share: a server of training processes, data, and one unbroken run to compare with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainings import Server, copy_data, make_data, model_hash, small_spec, small_two_stream

from ltpa.core.specs import Spec


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
    return _whole(small_spec(), server, data, tmp_path_factory)


@pytest.fixture(scope="session")
def unbroken_two_stream(server: Server, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Likewise of a two-stream network."""
    return _whole(small_two_stream(), server, data, tmp_path_factory)


@pytest.fixture(params=[small_spec, small_two_stream], ids=["cross-entropy", "two-stream"])
def trained(request: pytest.FixtureRequest) -> tuple[Spec, str]:
    """A spec, and the SHA-256 of the network that comes of it undisturbed; of either kind of training."""
    name = "unbroken" if request.param is small_spec else "unbroken_two_stream"
    return request.param(), request.getfixturevalue(name)


def _whole(spec: Spec, server: Server, data: Path, folders: pytest.TempPathFactory) -> str:
    results = copy_data(data, folders.mktemp("unbroken") / "results")
    child = server.train(spec, results)
    assert child.wait() == 0, child.output.read_text()
    return model_hash(results, spec)
