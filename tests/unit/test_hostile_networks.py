"""Files of networks from strangers: whatever they claim, a refusal is one line, comes soon and takes little memory."""

import hashlib
import json
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import narrow, two_stream_options

from ltpa.cli import main
from ltpa.core.errors import ModelError
from ltpa.core.hashing import canonical_json
from ltpa.data.normalise import build_normaliser
from ltpa.models import load, prune_dead_branch, save_model

MUTATIONS = 500
NUMBERS = (-1, 0, 1, 2, 3, 16, 20, 44, 1024, 1_000_000, 10**18, 10**400, 0.0, -1.5, 1e308, 0.0625)
TEXTS = ("", "vgg", "rn164", "vgg-att-dp", "two-stream", "torchvision:none", "x" * 100_000, "\ud800", "\0", "a\x1b[2J")
JUNK = (*NUMBERS, *TEXTS, None, True, [], {}, [[]] * 50_000, {"a": {"b": [1]}}, ["conv7", "conv7"], {"family": "vgg"})
OF_TENSORS = ("F16", "C64", "I64", "F32", "U8", [1], [10**9, 10**9], [0, 4], [8, 2**62], *JUNK)
SEALED_AS = {"F32": "float32", "I64": "int64", "F16": "float16", "C64": "complex64"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small network's file in its parts."""
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    model = narrow("vgg-att-pc", num_classes=3, image_size=17)
    model.preprocessing = build_normaliser("meanstd", 17)
    facts = {"architecture": model.architecture, "num_classes": 3, "image_size": 17, "classes": ["ant", "bee", "cat"]}
    save_model(path, model, variant="vgg-att-pc", extra={"seed": 3}, **facts)
    return parts(path)


def parts(path):
    """A file's facts of the network, the header's entries for its tensors, and their bytes."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8 : 8 + length])
    return json.loads(entries.pop("__metadata__")["ltpa"]), entries, data[8 + length :]


def forged(facts, entries, content):
    """A file of these parts under a good seal, as far as one is possible."""
    facts = dict(facts)
    try:
        state = hashlib.sha256(canonical_json({k: v for k, v in facts.items() if k != "sha256"}).encode())
        for name in sorted(entries):
            entry = entries[name]
            kind, (start, end) = SEALED_AS[entry["dtype"]], entry["data_offsets"]
            state.update(f"\0{name}\0torch.{kind}\0{tuple(entry['shape'])}\0".encode() + content[start:end])
        facts["sha256"] = state.hexdigest()
    except (KeyError, TypeError, ValueError):
        pass
    header = json.dumps({"__metadata__": {"ltpa": json.dumps(facts)}, **entries}).encode()
    return struct.pack("<Q", len(header)) + header + content


def mutated(chooser, facts, entries, content):
    """A file with one to three changes: of its facts, of what the header says of its tensors, of its bytes."""
    facts, entries = json.loads(json.dumps([facts, entries]))
    for _ in range(chooser.randint(1, 3)):
        places = [(facts, JUNK), (facts["architecture"], JUNK), (entries, JUNK)]
        target, values = chooser.choice([*places, (entries[min(entries)], OF_TENSORS), (None, ())])
        if target is None:
            data = bytearray(forged(facts, entries, content))
            data[chooser.randrange(len(data))] ^= chooser.randrange(1, 256)
            return bytes(data[: chooser.choice([len(data), chooser.randrange(len(data))])])
        key = chooser.choice([*target, "new"])
        if chooser.random() < 0.2:
            target.pop(key, None)
        else:
            target[key] = chooser.choice(values)
        if not isinstance(facts.get("architecture"), dict) or not isinstance(entries[min(entries)], dict):
            break
    return forged(facts, entries, content)


def test_mutated_files_are_refused_in_one_line(whole, tmp_path):
    chooser, path, refused = random.Random(15), tmp_path / "model.safetensors", 0
    for number in range(MUTATIONS):
        path.write_bytes(mutated(chooser, *whole))
        try:
            model = load(path)
        except ModelError as error:
            said, refused = str(error), refused + 1
            assert said.startswith(f"{path}: ") and said.isprintable() and len(said) < len(str(path)) + 300, number
        else:  # options that concern training alone, a class's name, more in `extra`
            seen = model.preprocessing(torch.zeros(2, 3, model.image_size, model.image_size))
            assert model(seen).shape == (2, len(model.metadata["classes"])), number
    assert MUTATIONS * 0.8 < refused < MUTATIONS


def changed(facts, **changes):
    """Facts under other values; options without a family change some of the architecture, and `...` takes a key out."""
    options = changes.get("architecture", {})
    values = {**changes, "architecture": options if "family" in options else {**facts["architecture"], **options}}
    return {key: value for key, value in {**facts, **values}.items() if value is not ...}


def retyped(entries, content, kind, size):
    """The first tensor as one of another type with as many elements."""
    name = next(name for name, entry in entries.items() if entry["data_offsets"][0] == 0)
    entry = entries[name]
    end = entry["data_offsets"][1]
    moved = end // (8 if entry["dtype"] == "I64" else 4) * size - end
    others = {
        other: {**each, "data_offsets": [place + moved for place in each["data_offsets"]]}
        for other, each in entries.items()
        if other != name
    }
    first = {**entry, "dtype": kind, "data_offsets": [0, end + moved]}
    return {name: first, **others}, bytes(end + moved) + content[end:]


DEEP = {"family": "resnet", "blocks_per_stage": 20_000}
FORGED = {
    "classes missing": ({"classes": ...}, "key 'classes' is missing"),
    "fewer classes": ({"classes": ["ant"]}, "num_classes is 3, and classes are 1 names"),
    "no text": ({"classes": ["ant", "bee", 3]}, "key 'classes.2' is 3: must be text"),
    "of another variant": ({"variant": "vgg-att-dp"}, "compatibility is 'dp', and this network's is 'pc'"),
    "of another family": ({"variant": "vgg-gap"}, "family is 'vgg-gap', and this network's is 'vgg-att'"),
    "of no variant": ({"variant": "a\nb"}, "key 'variant' is 'a\\\\nb'"),
    "one side": ({"image_size": 1_000_000}, "cannot take images of size 1000000; .* at most 1024"),
    "one channel": ({"architecture": {"width": 1e-9}}, "tensor .* should be float32 .* .and .* more"),
    "number of layers": (
        {"variant": "rn164", "architecture": DEEP},
        "'blocks_per_stage' is 20000: must be at most 200",
    ),
    "scheme": ({"normalisation": "zca"}, "key 'normalisation' is 'zca': must be one of none"),
    "whitening": ({"normalisation": "gcn-zca"}, "'preprocessing.mean' is float32 .3., and should be float32 .867."),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_header_is_named_by_what_is_wrong_in_it(whole, tmp_path, case, capsys):
    facts, entries, content = whole
    changes, says = FORGED[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(forged(changed(facts, **changes), entries, content))
    assert main(["attend", "picture.png", "--model", str(path), "--output", str(tmp_path)]) == 5
    error = capsys.readouterr().err
    assert re.search(says, error) and str(path) in error and error.count("\n") == 1


@pytest.mark.parametrize(("kind", "size"), [("F16", 2), ("C64", 8), ("F64", 8)])
def test_weights_of_another_type_are_refused(whole, tmp_path, kind, size):
    facts, entries, content = whole
    path = tmp_path / "model.safetensors"
    path.write_bytes(forged(facts, *retyped(entries, content, kind, size)))
    with pytest.raises(ModelError, match=r"tensor '.*' is (of type C64|float16|float64)"):
        load(path)


def test_only_what_can_be_loaded_is_saved(tmp_path):
    model = narrow("vgg-att-pc", num_classes=3, image_size=17)
    facts = {"architecture": model.architecture, "num_classes": 3, "image_size": 17, "classes": list("abc")}
    for variant, saved, says in (
        ("vgg-att-dp", model, "compatibility is 'dp'"),
        ("../vgg", model, "'variant' is '../vgg'"),
        ("vgg-att-pc", narrow("vgg-att-pc", num_classes=3, image_size=17).double(), "is float64 .* should be float32"),
    ):
        with pytest.raises(ModelError, match=f"will not save this network .*{says}"):
            save_model(tmp_path / "model", saved, variant=variant, **facts)
    assert not list(tmp_path.iterdir())
    save_model(
        tmp_path / "model",
        prune_dead_branch(model),
        variant="vgg-att-pc",
        **facts | {"architecture": prune_dead_branch(model).architecture},
    )
    assert load(tmp_path / "model", expect_variant="vgg-att-pc").architecture["compatibility"] == "local"


LIMITED = """
import json, resource, sys, time
from pathlib import Path
from ltpa.core.errors import ModelError
from ltpa.models import load

first, *others = map(Path, sys.argv[1:])
load(first)  # imports all that is needed
now = 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + 200_000_000,) * 2)
found = {}
for path in others:
    started = time.process_time()
    try:
        load(path)
    except ModelError:
        found[path.name] = time.process_time() - started
print(json.dumps(found))
"""


def costly(facts, entries, content):
    """Name -> the parts of a file that asks for much time or memory, or its bytes."""

    def claims(**changes):
        return forged(changed(facts, **changes), entries, content)

    def headed(text):
        header = json.dumps({"__metadata__": {"ltpa": text}, **entries}).encode()
        return struct.pack("<Q", len(header)) + header + content

    deep = {"variant": "rn164", "image_size": 20}
    wide = {"hidden": 65_536, "layers": 1000, "steps": 1000, "head_width": 65_536, "global_head": "conv1x1"}
    streams = two_stream_options(**wide).plain()
    many = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(50_000)}
    return {
        "whitening of 80 px": claims(image_size=80, normalisation="gcn-zca"),
        "whitening of 400 px": claims(image_size=400, normalisation="gcn-zca"),
        "many layers": claims(**deep, architecture=DEEP),
        "most layers": claims(**deep, architecture={**DEEP, "blocks_per_stage": 200}),
        "wide streams": claims(variant="twostream-attention", image_size=448, architecture=streams),
        "wide": claims(architecture={"width": 16.0}, num_classes=65_536, classes=["a"] * 65_536),
        "huge numbers": claims(image_size=10**300, num_classes=10**300),
        "many keys": claims(**{f"k{number}": 0 for number in range(200_000)}),
        "many classes": claims(classes=[[]] * 800_000),
        "nested": headed("[" * 500_000),
        "many tensors": forged(facts, many, b""),
        "a long header": struct.pack("<Q", 2**62) + content,
        "a header of 90 MB": struct.pack("<Q", 90_000_000) + bytes(90_000_000),
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set from what Linux says of memory")
def test_refusals_take_less_than_200_megabytes_and_5_seconds(whole, tmp_path):
    good, large = tmp_path / "good", tmp_path / "larger than any network"
    good.write_bytes(forged(*whole))
    files = costly(*whole)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with open(large, "wb") as stream:
        stream.truncate(921_000_000_000)
    os.mkfifo(tmp_path / "pipe")
    names = [*files, large.name, "pipe", "."]
    command = [sys.executable, "-c", LIMITED, str(good), *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(names)
    assert max(found.values()) < 5
