"""The layers that networks run through in training, as they run, against the table of facts in layers.txt."""

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from networks import EVERY, two_stream
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ltpa.core.declared import load_declaration
from ltpa.models import create_model, get_variant, list_models

TABLE = Path(__file__).parent / "layers.txt"
CLASSES = 7


def sections():
    """Title -> lines of each section of the table, comments and heads of columns left out."""
    found = {}
    for line in TABLE.read_text().splitlines():
        if title := re.match(r"\[(.+?)\]", line):
            lines = found.setdefault(title[1], [])
        elif found and line.strip() and not line.startswith("layer "):
            lines.append(line)
    return found


SECTIONS = sections()
NETWORKS, TWO_STREAM = (
    dict(re.split(r"  +", line, maxsplit=1) for line in SECTIONS.pop(title))
    for title in ("networks", "two-stream networks")
)


def steps_of(row, place):
    """What a row of the table stands for: (kind, its facts, side or None) for each operation, in order."""
    layer, *cells = row.split()
    picked = [cell.split("/")[place if "/" in cell else 0].replace("T", str(CLASSES)) for cell in cells]
    kernel, before, after, bias, eps, dropout, pool, side = (None if cell == "." else cell for cell in picked)
    side = None if side is None else int(side)
    found = []
    unpooled = None if pool else side  # a row gives the side that its pool leaves, not the one before
    if layer.startswith("lstm"):
        found.append(("lstm", (int(kernel), int(before), int(after), bias == "yes"), None))
    elif layer != "." and kernel:
        size, _, stride = kernel.partition("s")
        facts = (int(size), int(stride or 1), int(before), int(after), bias == "yes")
        found.append(("conv", facts, unpooled))
    elif layer != ".":
        found.append(("linear", (int(before), int(after), bias == "yes"), None))
    if eps:
        found.append(("norm", (int(after), float(eps)), unpooled))
    if dropout:
        found.append(("dropout", (float(dropout),), unpooled))
    if pool:
        found.append(("pool", (pool,), side))
    return found


def expected_steps(line, place):
    found = []
    for entry in line.split(", "):
        times, name = re.fullmatch(r"(?:(\d+) x )?(.+)", entry.strip()).groups()
        found += [step for row in SECTIONS[name] for step in steps_of(row, place)] * int(times or 1)
    return found


class Recorder(TorchFunctionMode):
    """Writes down the layers that torch's functions compute, whatever module calls them, as `steps_of` does."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if read := self.LAYERS.get(function):
            side = out.shape[3] if isinstance(out, Tensor) and out.ndim == 4 else None
            self.steps += read(self, out, side, *args, **(kwargs or {}))
        return out

    def conv(self, out, side, x, weight, bias=None, stride=(1, 1), *rest):
        height, width = weight.shape[2:]
        stride = stride if isinstance(stride, int) else stride[0]
        assert height == width and side == -(-x.shape[3] // stride), "padded so that only the stride makes maps smaller"
        return [("conv", (width, stride, weight.shape[1], weight.shape[0], bias is not None), side)]

    def linear(self, out, side, x, weight, bias=None):
        kind, facts, _ = self.steps[-1]
        if kind == "conv" and facts[2:4] == (weight.shape[1], weight.shape[0]) == (weight.shape[1], 1):
            return []  # <u, g> of equation 2, with the u of the convolution before
        return [("linear", (weight.shape[1], weight.shape[0], bias is not None), side)]

    def norm(self, out, side, x, mean, var, weight, bias, training, momentum, eps):
        assert training and momentum == 0.1
        return [("norm", (x.shape[1], eps), side)]

    def dropout(self, out, side, x, p, training, inplace):
        assert training
        return [("dropout", (p,), side)] if p else []

    def max_pool(self, out, side, x, kernel, stride, padding, dilation, ceil_mode, return_indices):
        assert side == -(-x.shape[3] // stride), "rounded up"
        return [("pool", (str(kernel) if kernel == stride else f"{kernel}s{stride}",), side)]

    def adaptive_pool(self, out, side, x, size, return_indices=False):
        return [("pool", (f"{x.shape[3]}" if size == 1 else f"to{size}",), side)]

    def mean(self, out, side, x, over):
        return [("pool", (f"mean{x.shape[3]}",), 1)]

    def lstm(self, out, side, x, state, weights, biased, layers, *rest):
        first = [weights[k * len(weights) // layers] for k in range(layers)]
        return [("lstm", (x.shape[1], weight.shape[1], weight.shape[0] // 4, biased), side) for weight in first]

    LAYERS: ClassVar = {
        torch.conv2d: conv, F.linear: linear, F.batch_norm: norm, F.dropout: dropout, F.max_pool2d: max_pool,
        F.adaptive_max_pool2d: adaptive_pool, F.adaptive_avg_pool2d: mean, Tensor.mean: mean, torch.lstm: lstm,
    }  # fmt: skip


def compare(model, inputs, expected):
    """Run `model` on `inputs` in training mode; every layer and its place must be as expected."""
    with Recorder() as recorder:
        model.train()(*inputs)
    sides = [step[2] for step in expected] + [None] * len(recorder.steps)
    got = [step if side is not None else (*step[:2], None) for step, side in zip(recorder.steps, sides, strict=False)]
    for place, (there, wanted) in enumerate(zip(got, expected, strict=False)):
        assert there == wanted, f"step {place}, after {got[max(0, place - 3) : place]}"
    assert len(got) == len(expected)


@pytest.mark.parametrize("size", [32, 80])
@pytest.mark.parametrize("variant", EVERY)
def test_layers_of_the_networks(variant, size):
    options = {"pools": "cub"} if size == 80 and get_variant(variant).recipe == "vgg" else {}
    with torch.device("meta"):
        model = create_model(variant, CLASSES, size, **options)
        compare(model, [torch.empty(2, 3, size, size)], expected_steps(NETWORKS[variant], size == 80))


def forms():
    """Profile and local stream -> its rows' options of the network, but for those of the loss."""
    declared = load_declaration("profiles")["two-stream"]
    found = {}
    for profile in ("paper", "code"):
        for row in list_models():
            if get_variant(row).family != "two-stream":
                continue
            options = {**declared[profile], **get_variant(row).architecture}
            network = {key: value for key, value in options.items() if not key.startswith("rank_")}
            assert found.setdefault(f"{profile} {options['local']}", network) == network
    return found


@pytest.mark.parametrize("form", TWO_STREAM)
def test_layers_of_the_two_stream_networks(form):
    streams, architecture = TWO_STREAM[form].split(" | "), forms()[form]
    with torch.device("meta"):
        model = two_stream(CLASSES, **{key: value for key, value in architecture.items() if key != "family"})
        inputs = [torch.empty(2, 3, side, side) for side in (448, 224)[: len(streams)]]
        compare(model, inputs, [step for place, line in enumerate(streams) for step in expected_steps(line, place)])


def test_every_network_and_every_section_of_the_table_is_used():
    assert NETWORKS.keys() == set(EVERY)
    assert TWO_STREAM.keys() == forms().keys()
    lines = ", ".join([*NETWORKS.values(), *TWO_STREAM.values()]).replace(" | ", ", ").split(", ")
    assert {re.sub(r"^\d+ x ", "", line.strip()) for line in lines} == SECTIONS.keys()
