"""Removal of the part of `pc` networks that cannot matter: the global branch (see `ltpa.models.attention`)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from ltpa.models.base import AttentionClassifier
from ltpa.models.registry import build_model, parse_options


def pruned_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved architecture without the branch that cannot matter; others stay the same."""
    plain: dict[str, Any] = parse_options(architecture).without_dead_branch().plain()
    return plain


def prune_dead_branch(model: AttentionClassifier) -> AttentionClassifier:
    """A copy of `model` without parameters that have no effect; its outputs equal the model's to rounding.

    Removed where compatibility is `pc` under a softmax: the global branch, the projections of g and the biases of u.
    VGG-PAN keeps the branch of its sigmoid gate. Networks of other kinds are copied unchanged. Mode, device, data type,
    preprocessing and metadata are kept, the architecture in these being the new one.
    """
    with torch.device("meta"):
        pruned = build_model(pruned_architecture(model.architecture), model.num_classes, model.image_size)
    pruned.preprocessing = copy.deepcopy(model.preprocessing)
    state = model.state_dict()
    pruned.load_state_dict({name: state[name].clone() for name in pruned.state_dict()}, assign=True)
    pruned.metadata = copy.deepcopy(model.metadata)
    if pruned.metadata:
        pruned.metadata["architecture"] = pruned.architecture
    return pruned.train(model.training)
