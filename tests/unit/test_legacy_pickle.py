import copyreg
import os
import pickle
import random
import struct

import numpy as np
import pytest

from ltpa.archives import legacy_pickle
from ltpa.archives.legacy_pickle import MOST_OPERATIONS, load_legacy_pickle
from ltpa.core.errors import DataError


def text(value):
    """A Python 2 string, as its pickle module writes it in protocol 2."""
    data = value if isinstance(value, bytes) else value.encode("latin1")
    return (b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))) + data


def integer(value):
    return b"J" + struct.pack("<i", value)


def array(shape, code, data, order="|", fortran=False, dtype_state=b"NNN"):
    """A NumPy array as Python 2 pickles it: `_reconstruct(ndarray, (0,), 'b')`, then its state."""
    sides = b"".join(map(integer, shape))
    dtype = b"cnumpy\ndtype\n" + text(code) + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text(order) + dtype_state + integer(-1) + integer(-1) + integer(0) + b"tb"
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text("b") + b"\x87R"
    state = integer(1) + b"(" + sides + b"t" + dtype + (b"\x88" if fortran else b"\x89") + text(data)
    return head + b"(" + state + b"tb"


def dictionary(**values):
    pairs = b"".join(text(key) + value for key, value in values.items())
    return b"\x80\x02}q\x01(" + pairs + b"u."


def listing(*items):
    return b"](" + b"".join(items) + b"e"


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 20), dtype=np.uint8)
BATCH = dictionary(
    batch_label=text("training batch 1 of 5"),
    labels=listing(integer(6), integer(9), integer(9)),
    data=array((3, 20), "u1", PIXELS.tobytes()),
    filenames=listing(text("a_s_1.png"), text("b\xe9_s_2.png"), text("c.png")),
)


@pytest.fixture
def load(tmp_path):
    def read(data):
        (tmp_path / "batch").write_bytes(data)
        return load_legacy_pickle(tmp_path / "batch")

    return read


def test_a_batch_of_python_2_reads_as_numpy_reads_it(load):
    batch = load(BATCH)
    expected = pickle.loads(BATCH, encoding="latin1")
    assert list(batch) == list(expected) == ["batch_label", "labels", "data", "filenames"]
    np.testing.assert_array_equal(batch["data"], PIXELS)
    np.testing.assert_array_equal(batch["data"], expected["data"])
    assert batch["data"].dtype == np.uint8
    for key in ("batch_label", "labels", "filenames"):
        assert batch[key] == expected[key]
    assert batch["filenames"][1] == "bé_s_2.png"


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("code", ["u1", "<i8", "<f4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_todays_python_too(load, protocol, code, order):
    values = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, dtype=code, order=order)
    read = load(pickle.dumps({"x": values, "n": 3, "names": ["a", "b"], "none": None}, protocol=protocol))
    np.testing.assert_array_equal(read["x"], values)
    assert read["x"].dtype == values.dtype
    assert (read["n"], read["names"], read["none"]) == (3, ["a", "b"], None)


class Trap:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def reference(module, name):
    return f"c{module}\n{name}\n".encode()


SPRUNG = []


def spring(*arguments):
    SPRUNG.append(arguments)


NOTHING = integer(0)
HOSTILE = {
    "a call of ours": pickle.dumps({"x": Trap(spring, 1)}),
    "a call, old protocol": pickle.dumps({"x": Trap(spring, 1)}, protocol=0),
    "os.system": b"\x80\x02cos\nsystem\nU\x04true\x85R.",
    "subprocess by instance opcode": b"\x80\x02(U\x04trueisubprocess\ncall\n.",
    "by object opcode": b"\x80\x02(cos\nsystem\nU\x04trueo.",
    "by stack global": pickle.dumps({"x": Trap(eval, "1")}, protocol=4),
    "getattr": dictionary(x=reference("builtins", "getattr")),
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0bload.__call__\x93.",
    "another numpy name": dictionary(x=reference("numpy", "load")),
    "numpy submodule": dictionary(x=reference("numpy.testing", "runstring")),
    "a codec": dictionary(x=reference("_codecs", "decode") + text("a") + text("rot13") + b"\x86R"),
    "getattr of what is allowed": dictionary(
        x=reference("builtins", "getattr") + reference("numpy", "dtype") + text("__init__") + b"\x86R"
    ),
    "attributes of a stand-in": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "object array": dictionary(x=array((1,), "O8", b"\0" * 8)),
    "void array": dictionary(x=array((1,), "V8", b"\0" * 8)),
    "structured type": dictionary(x=array((1,), "u1", b"1", dtype_state=b"N" + text("f") + b"}")),
    "big-endian": dictionary(x=array((1,), "i4", b"1234", order=">")),
    "too few bytes": dictionary(x=array((3, 3), "u1", b"12345678")),
    "too many bytes": dictionary(x=array((3,), "u1", b"1234")),
    "negative side": dictionary(x=array((-1, -4), "u1", b"1234")),
    "huge sides": dictionary(x=array((2**31 - 1,) * 9, "u1", b"1234")),
    "state set on a function": dictionary(x=reference("numpy", "dtype") + b"}(" + text("a") + NOTHING + b"ub"),
    "slots set on a function": dictionary(
        x=reference("numpy.core.multiarray", "_reconstruct") + b"N}" + text("_function") + NOTHING + b"s\x86b"
    ),
    "new object of a function": dictionary(x=reference("numpy", "ndarray") + b")\x81"),
    "array without state": dictionary(x=reference("numpy.core.multiarray", "_reconstruct") + b")R"),
    "array in a list": dictionary(x=listing(array((1,), "u1", b"1"))),
    "the function itself": dictionary(x=reference("numpy", "dtype")),
    "persistent object": b"\x80\x02U\x01aQ.",
    "extension code": b"\x80\x02\x82\x01.",
    "memo far away": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo far away in a long file": b"\x80\x02}r\0\0\0\x04." + bytes(2**17),
    "sets without end": b"\x80\x04" + b"\x8f" * (MOST_OPERATIONS + 1) + b".",
    "one text as many arrays": dictionary(**{f"k{i}": array((3,), "u1", b"123") for i in range(17)}),
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b"abc.",
    "a buffer out of band": b"\x80\x05}\x8c\x01x\x97s.",
    "memo far away, as text": b"\x80\x02}p99999999999\n.",
    "huge string": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",
    "a list": pickle.dumps([1, 2]),
    "a number as key": pickle.dumps({1: 2}),
    "a set": pickle.dumps({"x": {1, 2}}, protocol=4),
    "a list of lists": pickle.dumps({"x": [[1]]}),
    "empty": b"",
    "no pickle": b"<!doctype html><html></html>",
    "stop at once": b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(load, name):
    copyreg.add_extension("builtins", "eval", 1)
    try:
        with pytest.raises(
            DataError, match=r"batch: not a dataset's pickle \(.+\); extract its archive anew"
        ) as caught:
            load(HOSTILE[name])
    finally:
        copyreg.remove_extension("builtins", "eval", 1)
    assert "\n" not in str(caught.value)
    assert SPRUNG == []
    np.testing.assert_array_equal(load(BATCH)["data"], PIXELS)  # and it altered nothing for the next one


@pytest.mark.parametrize("name", ["memo far away", "memo far away, as text", "sets without end"])
def test_memory_bombs_are_seen_before_anything_is_read(load, name, monkeypatch):
    monkeypatch.setattr(legacy_pickle, "_Unpickler", None)
    with pytest.raises(DataError, match="more than 2000000 operations or memo slots"):
        load(HOSTILE[name])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.fromfile])
def test_no_function_is_called_in_any_protocol(load, protocol, function):
    with pytest.raises(DataError, match="calls on"):
        load(pickle.dumps({"x": Trap(function, "touch trapped")}, protocol))


def test_a_state_with_false_flags_never_reaches_numpy(load):
    """Raw bytes that NumPy would take for pointers to objects: the dtype's flags say that it holds none."""
    inner = array((1,), "O8", b"\0" * 8)
    fields = b"}" + text("f") + inner[inner.index(b"cnumpy\ndtype") : -len(b"\x89" + text(b"\0" * 8) + b"tb")]
    with pytest.raises(DataError, match="structured"):
        load(
            dictionary(x=array((1,), "u1", b"1", dtype_state=b"N" + text("f") + b"\x85" + fields + NOTHING + b"\x86s"))
        )


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_a_file_of_python_2_that_python_3_wrote_again_reads_alike(load, encoding):
    again = pickle.loads(BATCH, encoding=encoding)
    batch = load(pickle.dumps(again, protocol=5))
    np.testing.assert_array_equal(batch["data"], PIXELS)
    assert list(batch) == ["batch_label", "labels", "data", "filenames"] and batch["labels"] == [6, 9, 9]


def test_the_traps_are_real():
    pickle.loads(HOSTILE["a call of ours"])
    assert SPRUNG.pop() == (1,)


def test_missing_file_is_one_error(tmp_path):
    with pytest.raises(DataError, match="none: not a dataset's pickle"):
        load_legacy_pickle(tmp_path / "none")


def test_no_damage_gets_through_as_another_error(load):
    rng = random.Random(5)
    refused = 0
    for number in range(600):
        damaged = bytearray(BATCH[: rng.randrange(len(BATCH))] if number % 3 == 0 else BATCH)
        if number % 3:
            position = rng.randrange(8 * len(BATCH))
            damaged[position // 8] ^= 1 << position % 8
        try:
            assert isinstance(load(bytes(damaged)), dict)
        except DataError:
            refused += 1
    assert refused >= 200  # every cut one at least
