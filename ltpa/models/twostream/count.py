"""Parameters and multiply-accumulates of two-stream networks, from shapes alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltpa.models.twostream.network import TwoStream, build_twostream


def count_twostream(architecture: Mapping[str, Any], num_classes: int) -> dict[str, int]:
    """`parameters`, and `macs` of one image with one patch.

    Counted are convolutions, linear layers and the LSTM's gates; a multiplication with its addition is one.
    """
    with torch.device("meta"):
        model = build_twostream(architecture, num_classes).eval()
    options = model.options
    macs = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal macs
        macs += _macs(module, inputs[0], output)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.LSTM):
            module.register_forward_hook(add)
    with torch.no_grad():
        image, patch = (
            torch.empty(1, 3, side, side, device="meta") for side in (options.image_size, options.patch_size)
        )
        model(image, patch)
    return {"parameters": count_parameters(model), "macs": macs}


def count_parameters(model: TwoStream) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(module: nn.Module, x: Tensor, output: Any) -> int:
    if isinstance(module, nn.Conv2d):
        kernel = module.weight[0].numel()
        return kernel * int(output.numel())
    if isinstance(module, nn.Linear):
        return module.in_features * int(output.numel())
    assert isinstance(module, nn.LSTM)
    gates = sum(weight.numel() for name, weight in module.named_parameters() if name.startswith("weight"))
    return gates * int(x.shape[0] * x.shape[1])
