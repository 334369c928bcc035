"""The update against `torch.optim.SGD`, and that a training does not load torch's compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from ltpa.training.sgd import SGD

SETTINGS = [
    {"momentum": 0.9, "dampening": 0.9, "weight_decay": 5e-4},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    {"momentum": 0.9},
    {},
]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), (2, 2, 3, 3))]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_bits_are_those_of_the_usual_class(settings, fused):
    """Also where velocities are handed to another optimiser, and where a parameter gets no gradient at first.

    The fused update knows one first step for all parameters, in torch's class too.
    """
    ours, usual = parameters(), parameters()
    optimizer, reference = SGD(ours, fused=fused, **settings), torch.optim.SGD(usual, lr=0.1, fused=fused, **settings)
    for step in range(6):
        rate = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        for values, update in ((ours, optimizer), (usual, reference)):
            update.zero_grad()
            used = values if fused or step > 1 else values[:2]
            sum((value**3).sum() for value in used).backward()
        optimizer.step(rate)
        reference.step()
        if step == 3:
            before, optimizer = optimizer, SGD(ours, fused=fused, **settings)
            optimizer.load(before.velocities)
            for velocity in before.velocities:
                if velocity is not None:
                    velocity.fill_(torch.nan)  # copies were taken
        assert all(torch.equal(*pair) for pair in zip(ours, usual, strict=True))


TRAINING = """
import sys
from pathlib import Path
import torch
from ltpa.models import create_model
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Trainer
from ltpa.training.recipe import Recipe
arrays = Arrays(torch.zeros(8, 3, 20, 20), torch.arange(8) % 2)
recipe = Recipe.from_dict({"epochs": 1, "batch_size": 4, "lr": 0.1})
Trainer(create_model("vgg-att2-concat-pc", 2, 20, 0.0625), arrays, arrays, recipe, 0, Path(sys.argv[1])).run()
print(*sorted(name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules))
"""


def test_a_training_does_not_import_the_compiler(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
