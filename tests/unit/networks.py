"""Small networks for tests: one sixteenth of the width, shallow residual stages, statistics that are not trivial."""

import json

import torch

from ltpa.core.declared import load_declaration
from ltpa.models import build_model, create_model, get_variant, list_models
from ltpa.models.registry import family, parse_options

NARROW = 1 / 16
# The variants that learn from images alone; those of the survey have tests of their own (test_survey.py, ...).
SURVEY = {name for file in ("survey", "looking") for name in load_declaration(f"variants/{file}")}
EVERY = [
    name
    for name in list_models()
    if get_variant(name).learning == "cross-entropy"
    and not family(get_variant(name).family).trained_on
    and name not in SURVEY
]
# The variants that are networks of their own: without those that differ from another one in training alone.
_FIRST = {json.dumps(get_variant(name).architecture): name for name in reversed(EVERY)}.values()
DISTINCT = [name for name in EVERY if name in _FIRST]


def options_of(variant):
    return {"blocks_per_stage": 2} if get_variant(variant).recipe == "resnet" else {}


def narrow(variant, num_classes=5, image_size=32, **options):
    torch.manual_seed(0)
    return create_model(variant, num_classes, image_size, NARROW, **(options_of(variant) | options))


def unsettled(variant, num_classes=5, image_size=20, seed=1, **options):
    """In float64 and eval mode, with random biases and running statistics, as after some training."""
    model = narrow(variant, num_classes, image_size, **options).double().eval()
    random = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.2, 0.6, generator=random)
        elif name.endswith(("running_mean", "bias")):
            value.uniform_(-0.3, 0.3, generator=random)
    return model


def images(count, size, seed=2, dtype=torch.float64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two_stream_options(**options):
    return parse_options({"family": "two-stream", **options})


def two_stream(num_classes=5, **options):
    """A two-stream network on what `options` say, defaults being those of the thesis."""
    resolved = two_stream_options(**options)
    return build_model(resolved.plain(), num_classes, resolved.image_size)
