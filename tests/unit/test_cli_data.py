"""`ltpa data` and `ltpa prepare` as a user calls them, on a miniature dataset."""

import os
import shutil

import miniature_datasets as miniature
import numpy as np
import pytest
import yaml
from PIL import Image

from ltpa.cli import main
from ltpa.core.declared import config_dir, load_declaration


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a miniature MNIST among the archives, and declarations that fit it."""
    (tmp_path / "archives").mkdir()
    declared, _ = miniature.mnist(tmp_path / "archives")
    shutil.copytree(config_dir(), tmp_path / "config")
    (tmp_path / "config/datasets/mnist.yaml").write_text(yaml.safe_dump({"mnist": declared}))
    monkeypatch.setattr("ltpa.core.declared.config_dir", lambda: tmp_path / "config")
    for module in ("views", "declared_tables"):
        monkeypatch.setattr(f"ltpa.plan.{module}.config_dir", lambda: tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    config = ["--config", str(config_dir() / "config.yaml")]
    return main([*arguments, *config])


def test_prepare_list_verify_show(place, capsys):
    assert call("data", "list") == 0
    assert (
        "mnist                  mnist                       5      10         ?  -         MNIST"
        in capsys.readouterr().out
    )
    assert call("prepare", "mnist", "--archives", f"{place}{os.pathsep}{place / 'archives'}") == 0
    assert "mnist: train, 3 images (3 expected)" in capsys.readouterr().err
    assert call("data", "verify", "--archives", str(place / "archives")) == 0
    printed = capsys.readouterr().out
    assert printed.count("as declared or first seen") == 4 and "mnist: arrays as their manifest says" in printed
    assert call("data", "show", "mnist", "--out", "sheet.png") == 0
    assert np.asarray(Image.open("sheet.png")).shape == (10 * 66, 160 + 12 * 66, 3)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["data", "fetch", "mnist", "--archives", "gone"], "--archives gone: no such folder"),
        (["prepare", "digits10", "--extracted", "gone"], "digits10 is made from embedded images"),
        (["data", "show", "mnist"], "manifest.json: no such file; prepare the dataset first"),
        (["data", "verify", "mnits"], "did you mean mnist"),
    ],
)
def test_wrong_requests_are_one_error(place, capsys, command, message):
    assert call(*command) != 0
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_verify_finds_an_altered_array_and_an_altered_archive(place, capsys):
    call("prepare", "mnist", "--archives", str(place / "archives"))
    path = place / "results/demo/data/mnist/test.images.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert call("data", "verify", "mnist") == 3
    assert "test.images.npy: content does not match its SHA-256" in capsys.readouterr().err
    (place / "archives/t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bother")
    assert call("data", "verify", "mnist", "--archives", "archives") == 3
    assert "t10k-labels-idx1-ubyte.gz: has SHA-256" in capsys.readouterr().err


def test_verify_tells_what_there_is(place, capsys):
    assert call("data", "verify") == 0
    assert capsys.readouterr().out == (
        "nothing to verify: no dataset is prepared at scale demo, and no archive is here\n"
    )
    assert call("data", "verify", "mnist", "digits20", "--archives", "archives") == 2
    told = capsys.readouterr()
    assert "nothing to verify of digits20: not prepared at scale demo, and no archive in" in told.err
    assert told.err.count("\n") == 1 and told.out == ""


def test_verify_trusts_no_archive_that_was_never_seen(place, capsys):
    for _ in range(2):
        assert call("data", "verify", "--archives", "archives") == 0
        printed = capsys.readouterr().out
        assert printed.count("not seen before and without a declared checksum, so not verified") == 4
        assert "mnist: not prepared at scale demo" in printed
    assert not list((place / "results").rglob("*.json"))


def test_verify_goes_through_everything_before_it_fails(place, capsys):
    for name in ("mnist", "digits10"):
        assert call("prepare", name, "--archives", "archives") == 0
    (place / "archives/t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bother")
    (place / "results/demo/data/digits10/train.labels.npy").unlink()
    capsys.readouterr()
    assert call("data", "verify", "--archives", "archives") == 3
    told = capsys.readouterr()
    assert "t10k-labels-idx1-ubyte.gz: has SHA-256" in told.err and "train.labels.npy: missing" in told.err
    assert told.err.count("\n") == 1
    assert told.out.count("as declared or first seen") == 3 and "mnist: arrays as their manifest says" in told.out


def test_prepare_by_name_searches_the_configured_archives(place):
    config = yaml.safe_load((place / "config/config.yaml").read_text())
    config["jobs"]["archives"] = [str(place / "archives")]
    (place / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["prepare", "mnist", "--config", "mine.yaml"]) == 0
    assert not list((place / "results/downloads").glob("*.gz"))  # used where they lie
    assert (place / "results/demo/data/mnist/manifest.json").is_file()


def test_fetch_finds_archives_in_a_users_folder(place, capsys):
    assert call("data", "fetch", "mnist", "digits10", "--archives", "archives") == 0
    printed = capsys.readouterr().out
    assert "mnist: archives/train-images-idx3-ubyte.gz" in printed and "digits10: nothing to fetch" in printed


@pytest.mark.parametrize(
    "arguments", [["data", "fetch", "mnits"], ["data", "verify", "mnits"], ["data", "show", "mnits"]]
)
def test_unknown_dataset(place, capsys, arguments):
    assert call(*arguments) == 2
    assert capsys.readouterr().err == "ltpa: error: unknown dataset 'mnits'; did you mean mnist?\n"


def test_one_dataset_is_declared_in_one_place(place):
    (place / "config/datasets/other.yaml").write_text("digits10: {}\n")
    with pytest.raises(Exception, match=r"other\.yaml: digits10 declared elsewhere too; keep one"):
        load_declaration("datasets")
