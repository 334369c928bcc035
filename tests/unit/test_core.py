"""Files, hashes, records, seeds, provenance."""

import dataclasses
import json
import math
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltpa.core.errors import ConfigError, LtpaError, RecordError
from ltpa.core.files import atomic_path, write_text
from ltpa.core.hashing import canonical_json, digest, sha256_file
from ltpa.core.records import Metric, Record, epsilon_of, read_record, write_record
from ltpa.core.seeds import derive
from ltpa.core.specs import PrepareSpec, ProtocolSpec, TrainSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def record(**changes):
    values = {
        "stage": "train",
        "scale": "demo",
        "dataset": "digits10",
        "variant": "vgg",
        "seed": 0,
        "metrics": [Metric("test_error_pct", 12.5, 500, "digits10")],
        "config_hash": "a",
        "data_hash": "b",
        "code_hash": "c",
        "code_version": "d",
        "libraries": {"torch": "2"},
        "device": "cpu",
        "threads": 1,
        "seconds": 1.5,
        "peak_memory_mb": 300.0,
    }
    return Record(**{**values, **changes})


def test_write_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LtpaError, match=r"file/below: cannot write here"):
        write_text(tmp_path / "file" / "below", "x")


@given(JSON)
def test_canonical_json_round_trips_and_ignores_key_order(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)


def test_hash_of_nan_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        digest({"loss": math.nan})


def test_file_hash_equals_sha256sum(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(os.urandom(3_000_000))
    expected = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert sha256_file(path) == expected


def test_record_round_trip(tmp_path):
    path = tmp_path / "result.json"
    write_record(path, record())
    assert read_record(path) == record()


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("mass_in_mask_pct", -0.1, False), ("pxap_pct", 100.1, False), ("svm_accuracy_pct", 100.0, True),
        ("drop_pct", -4.0, True), ("drop_pct", -101.0, False), ("road_pct", -30.0, True),
        ("road_most_pct", -1.0, False), ("road_most_pct_of_oracle_pct", 122.0, True), ("mce_pct", 150.0, True),
        ("mce_pct", -1.0, False), ("relative_mce_pct", -3.0, True), ("train_loss", -0.1, False),
    ],
)  # fmt: skip
def test_values_lie_where_their_units_allow(tmp_path, name, value, fits):
    """Shares between 0 and 100 %; differences and ratios may lie beyond."""
    made = dataclasses.replace(record(), metrics=[Metric(name, value, 5, "digits10")])
    if fits:
        write_record(tmp_path / "result.json", made)
        assert read_record(tmp_path / "result.json") == made
    else:
        with pytest.raises(RecordError, match="unit does not allow"):
            write_record(tmp_path / "result.json", made)


@settings(deadline=None)  # a busy machine
@given(st.data())
def test_any_edit_of_a_record_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("r") / "result.json"
    write_record(path, record())
    text = path.read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.characters(codec="ascii").filter(lambda c: c != text[at]))
    path.write_text(text[:at] + new + text[at + 1 :])
    try:
        same = json.loads(path.read_text()) == json.loads(text)
    except ValueError:
        same = False
    if same:  # white space only
        assert read_record(path) == record()
    else:
        with pytest.raises(RecordError, match=r"result\.json"):
            read_record(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": "00"}', "\x00"])
def test_what_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(RecordError, match="delete it"):
        read_record(path)


def test_missing_record_is_named(tmp_path):
    with pytest.raises(RecordError, match="no such result record"):
        read_record(tmp_path / "result.json")


@pytest.mark.parametrize(
    "bad",
    [
        {"metrics": [Metric("test_error_pct", math.nan, 1)]},
        {"status": "failed"},
        {"reason": "but ok"},
        {"status": "maybe", "reason": "x"},
    ],
)
def test_senseless_records_are_not_written(tmp_path, bad):
    with pytest.raises(RecordError):
        write_record(tmp_path / "result.json", record(**bad))
    assert not (tmp_path / "result.json").exists()


def test_the_step_size_of_an_attack_stands_in_its_condition():
    assert [epsilon_of(condition) for condition in ("eps=8", "eps=0.5", "eps=1e-05")] == [8.0, 0.5, 1e-5]
    for condition in ("", "8", "raw", "eps="):
        with pytest.raises(RecordError, match=f"condition {condition!r}: names no step size"):
            epsilon_of(condition)


def test_streams_differ_by_seed_and_purpose():
    seeds = [derive(s, p, e) for s in (0, 1) for p in ("order", "augment") for e in (1, 2)]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**63 for s in seeds)
    assert derive(0, "order", 1) == derive(0, "order", 1)


def test_specs_round_trip_and_hash_by_content():
    spec = TrainSpec("demo", "digits10", 1, "vgg", {"family": "vgg"}, 10, 20, {"lr": 0.1})
    again = TrainSpec.from_json(spec.to_json())
    assert again == spec and again.hash() == spec.hash()
    other = TrainSpec("demo", "digits10", 1, "vgg", {"family": "vgg"}, 10, 20, {"lr": 0.2})
    assert other.hash() != spec.hash()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"variant": "vgg"}', "@/no/such/file", '{"a": 1}'])
def test_bad_specs_are_one_error(text):
    with pytest.raises(ConfigError, match="not a ProtocolSpec") as caught:
        ProtocolSpec.from_json(text)
    assert "__init__" not in str(caught.value) and "\n" not in str(caught.value)


def test_bad_specs_name_their_keys():
    with pytest.raises(
        ConfigError, match="scale is missing; dataset is missing; threads is missing; variant is missing"
    ):
        ProtocolSpec.from_json("{}")
    with pytest.raises(ConfigError, match="shape is unknown; colour is unknown; take one"):
        PrepareSpec.from_json('{"scale": "a", "dataset": "b", "threads": 1, "source": {}, "shape": 1, "colour": 2}')
    with pytest.raises(ConfigError, match="threads must be a whole number"):
        PrepareSpec.from_json('{"scale": "a", "dataset": "b", "threads": "1", "source": {}}')
