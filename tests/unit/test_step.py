"""The ways to run a step (fused, compiled, recorded, other layouts) against the plain one; what no step may do."""

import contextlib
import itertools
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ltpa.core.errors import TrainingError
from ltpa.data.normalise import fit_normaliser
from ltpa.models import create_model
from ltpa.training import graph
from ltpa.training.arrays import Arrays
from ltpa.training.graph import WARM_UP, StepGraph
from ltpa.training.recipe import Recipe
from ltpa.training.step import Stepper

SETTINGS = {"epochs": 4, "batch_size": 8, "lr": 0.05, "crop": 2, "weight_decay": 1e-3, "lr_decay": 0.01}
DROPS = {"kind": "milestones", "milestones": [2, 3], "factors": [0.3, 0.3]}
DAMPENED = {"dampening": 0.9, "lr": 0.5}
NESTEROV = {"nesterov": True, "reset_momentum": True, "schedule": DROPS}


class Shallow(nn.Module):
    """So shallow that rounding does not grow from step to step, as it does in deep networks on small batches."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 3)

    def loss_and_logits(self, x, targets):
        logits = self.linear(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))
        return nn.functional.cross_entropy(logits, targets), logits


def bytes_and_inputs():
    """The same images twice: as bytes with what normalises them, and normalised before."""
    raw = np.random.default_rng(1).integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    normalise = fit_normaliser("meanstd", raw)
    images = torch.from_numpy(raw).permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(40) % 3
    return Arrays(images, labels, normalise), Arrays(normalise(images.float()), labels)


def stepper(seed=0, dropout=0.0, variant="vgg-att2-concat-pc", train=None, **changes):
    generator = torch.Generator().manual_seed(1)
    size = 16 if variant == "shallow" else 20
    train = train or Arrays(torch.randn(40, 3, size, size, generator=generator), torch.arange(40) % 3)
    torch.manual_seed(seed)
    if variant == "shallow":
        model = Shallow()
    else:
        model = create_model(variant, 3, 20, 1 / 16, dropout=dropout, bn_weight="one", u_std=0.2)
    return Stepper(model, train, Recipe.from_dict({**SETTINGS, **changes}), seed)


def weights_after(taken, epochs=2):
    for epoch in range(1, epochs + 1):
        taken.enter_epoch(epoch, 0)
        for step in range(taken.steps_per_epoch):
            taken.take(epoch, step)
    return {name: value.clone() for name, value in taken.model.state_dict().items()}


def assert_same_bits(first, second):
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_close(first, second, moved_from):
    """Equal to rounding, with weights that moved by far more than that."""
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=1e-4)
    moved = first["conv.weight"] - moved_from["conv.weight"]
    assert float(moved.abs().max()) > 5e-3


@pytest.mark.parametrize("changes", [DAMPENED, NESTEROV], ids=["dampened", "nesterov"])
def test_a_rate_read_from_a_tensor_gives_the_same_bits(changes):
    """`torch.optim.SGD` told each step's rate as a number, against the stepper, whose update reads a tensor."""
    ours, told = stepper(**changes), stepper(**changes)
    usual = torch.optim.SGD(
        told.model.parameters(),
        lr=0.0,
        momentum=told.recipe.momentum,
        dampening=told.recipe.dampening,
        nesterov=told.recipe.nesterov,
        weight_decay=told.recipe.weight_decay,
        fused=True,
    )
    told.update.reset = usual.state.clear
    told.update.step = lambda rate: (usual.param_groups[0].update(lr=float(rate)), usual.step())
    assert_same_bits(weights_after(ours, 3), weights_after(told, 3))


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (DAMPENED, {"fused": False}),
        (NESTEROV, {"fused": False}),
        (NESTEROV, {"channels_last": False}),
        pytest.param(
            NESTEROV,
            {"compile": True},
            marks=[
                pytest.mark.compiler,
                pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU"),
            ],
        ),
    ],
    ids=["fused-dampened", "fused-nesterov", "layout", "compiled"],
)
def test_other_ways_to_compute_agree_with_the_default(base, change):
    plain, other = stepper(variant="shallow", **base), stepper(variant="shallow", **base, **change)
    start = {name: value.clone() for name, value in plain.model.state_dict().items()}
    first, second = weights_after(plain), weights_after(other)
    assert_close(first, second, start)
    assert plain.totals() == pytest.approx(other.totals(), rel=1e-3)


def test_a_second_seed_finds_the_code_compiled(monkeypatch):
    """Captured graphs are counted, with a backend that runs them as they are."""
    captured = []

    def backend(module, inputs):
        captured.append(module)
        return module.forward

    from ltpa.training import step

    torch.compiler.reset()
    step._compiled_losses.cache_clear()
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=backend, **options))
    counts = []
    for seed in (0, 1):
        compiled = weights_after(stepper(seed, compile=True, **NESTEROV), 1)
        counts.append(len(captured))
        assert_same_bits(weights_after(stepper(seed, **NESTEROV), 1), compiled)
    step._compiled_losses.cache_clear()
    assert counts == [1, 1]


def test_on_a_cpu_a_graph_changes_nothing():
    changes = {"dropout": 1.0, **NESTEROV}
    assert_same_bits(weights_after(stepper(**changes)), weights_after(stepper(cuda_graph=True, **changes)))


class Stand:
    """Stands in for CUDA's recording: notes what is computed while recording, and computes it when played."""

    recording = None
    recorded = 0
    played = 0

    def replay(self):
        type(self).played += 1
        self.compute()


def recorded_stepper(**changes):
    taken = stepper(**changes)
    compute = taken._compute

    def noted():
        if Stand.recording is None:
            compute()
        else:
            Stand.recording.compute = compute

    taken._compute, taken._graph = noted, StepGraph(taken.device)
    return taken


@pytest.fixture
def without_cuda(monkeypatch):
    """`StepGraph` with stand-ins for the CUDA calls: its bookkeeping runs, CUDA's own behaviour is not tested."""

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            pass

    @contextlib.contextmanager
    def recording(stand, stream):
        Stand.recording = stand
        yield
        Stand.recording = None
        Stand.recorded += 1

    Stand.recorded = Stand.played = 0
    for name, value in {
        "Stream": Stream,
        "CUDAGraph": Stand,
        "graph": recording,
        "device": lambda device: contextlib.nullcontext(),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": Stream,
        "synchronize": lambda device: None,
    }.items():
        monkeypatch.setattr(graph.torch.cuda, name, value)


@pytest.mark.parametrize("changes", [DAMPENED, NESTEROV], ids=["dampened", "nesterov"])
def test_steps_are_recorded_after_every_reset_and_never_a_first_one(without_cuda, changes):
    """The first update takes the gradient undampened; velocities made anew at a reset ask for a new recording."""
    plain, recorded = stepper(**changes), recorded_stepper(**changes)
    assert_same_bits(weights_after(plain, 4), weights_after(recorded, 4))
    # Four epochs of five steps. Nesterov: the rate drops, and momentum is reset, at epochs 2 and 3.
    resets = 2 if "nesterov" in changes else 0
    assert Stand.recorded == 1 + resets
    assert Stand.played == 20 - WARM_UP * (1 + resets)


@pytest.mark.parametrize("made", ["stepper", "recorded_stepper"])
def test_steps_on_bytes_have_the_bits_of_steps_on_inputs(without_cuda, made):
    """Directly, and recorded: what normalises a batch stays in place, too."""
    kept, once = ({"stepper": stepper, "recorded_stepper": recorded_stepper}[made](train=t) for t in bytes_and_inputs())
    assert kept.train.images.dtype == torch.uint8
    assert_same_bits(weights_after(kept), weights_after(once))
    assert (Stand.played > 0) == (made == "recorded_stepper")


def test_state_taken_up_asks_for_a_new_recording(without_cuda):
    recorded = recorded_stepper()
    weights_after(recorded)
    recorded.load_state_dict(recorded.state_dict())
    weights_after(recorded)
    assert Stand.recorded == 2


class Waits(TorchDispatchMode):
    """Collects operators whose result the program must see before it goes on, which makes a GPU's queue run dry."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")):
            self.seen.append(name)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [DAMPENED, NESTEROV], ids=["dampened", "nesterov"])
@pytest.mark.parametrize("variant", ["vgg-att3-concat-pc", "vgg-att2-indep-dp", "vgg-pan", "rn164-att2", "bytes"])
def test_no_step_waits_for_the_device(variant, changes):
    if variant == "bytes":
        taken = stepper(train=bytes_and_inputs()[0], **changes)
    else:
        taken = stepper(variant=variant, dropout=1.0, **changes)
    taken.enter_epoch(1, 0)
    with Waits() as waits:
        taken.take(1, 0)
        taken.take(1, 1)
    assert waits.seen == []
    with waits:
        assert taken.totals()[0] > 0
    assert waits.seen, "the detector sees the wait of totals()"


def test_tensors_a_recording_would_use_stay_where_they_are():
    taken = stepper(dropout=1.0, **DAMPENED)
    places = []
    for epoch, step in itertools.product((1, 2), range(5)):
        if step == 0:
            taken.enter_epoch(epoch, 0)
        taken.take(epoch, step)
        held = [taken._chosen, taken._mirrored, taken._offset, taken._rate, taken._loss_sum, taken._wrong]
        held += [*taken.model.state_dict().values()]
        held += taken.optimizers[0].velocities
        places.append([value.data_ptr() for value in held])
    assert places[0] == places[-1] and len(set(places[0])) > 50


def test_half_precision_keeps_losses_weights_and_statistics_single(monkeypatch):
    taken = stepper(precision="bf16")
    seen = []
    losses = taken._losses
    monkeypatch.setattr(taken, "_losses", lambda *args: seen.append(losses(*args)) or seen[-1])
    weights = weights_after(taken, 1)
    assert {loss.dtype for loss, _ in seen} == {torch.float32}
    assert {v.dtype for name, v in weights.items() if "tracked" not in name} == {torch.float32}


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match="there is no no-such-compiler; install it"):
        stepper(variant="shallow", compile=True)
