"""Fitted preprocessing is kept, checked and shared."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltpa.core.hashing import sha256_file
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.stages import preprocessing


@pytest.fixture
def dataset(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    split = Split(images, np.arange(40) % 2, np.array([str(i) for i in range(40)]))
    write_prepared(tmp_path / "d", "d", ["a", "b"], {"train": split, "test": split}, {})
    return PreparedDataset.open(tmp_path / "d")


def states(module):
    return module.state_dict()


def test_whitening_is_fitted_once_and_loads_to_the_same_bits(tmp_path, dataset, monkeypatch):
    first = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    monkeypatch.setattr(preprocessing, "fit_normaliser", None)  # a second fit would fail
    second = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    assert all(torch.equal(states(first)[name], states(second)[name]) for name in states(first))


def test_damaged_whitening_is_fitted_anew(tmp_path, dataset, caplog):
    first = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    (path,) = tmp_path.rglob("gcn-zca.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    second = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    assert "damaged" in caplog.text
    assert torch.equal(states(first)["whitening"], states(second)["whitening"])


def test_whitening_of_other_images_is_fitted_anew(tmp_path, dataset, caplog):
    first = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    (path,) = tmp_path.rglob("gcn-zca.safetensors")
    save_file({"mean": torch.zeros(3), "whitening": torch.zeros(3, 3)}, path)
    path.with_suffix(".sha256").write_text(sha256_file(path))
    second = preprocessing.fitted_normaliser(tmp_path, dataset, "gcn-zca")
    assert "tensor 'mean' is float32 [3], and should be float32 [108]" in caplog.text and "fitting anew" in caplog.text
    assert torch.equal(states(first)["whitening"], states(second)["whitening"])


def test_cheap_schemes_are_not_kept(tmp_path, dataset):
    assert preprocessing.fitted_normaliser(tmp_path, dataset, "meanstd").scheme == "meanstd"
    assert not list(tmp_path.rglob("*.safetensors"))
