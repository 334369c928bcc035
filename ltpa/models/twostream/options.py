"""Options of the two-stream network: what its architecture may say, with defaults and limits.

Needs nothing but the standard library, so that plans stay cheap.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ltpa.core.errors import ModelError
from ltpa.models.fields import choice, number, read_fields, switch, text, whole

OWN_TRUNKS = ("vgg6", "vgg6_bn", "vgg11", "vgg11_bn", "vgg19", "vgg19_bn", "resnet34")
TORCHVISION = "torchvision:"
STRIDE = 32  # of a trunk, with its last pool
SMALL_STRIDE = 8  # of vgg6, which is for small images


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoStreamOptions:
    """One two-stream network. The defaults are those of the profile `paper`.

    Attributes:
        trunk: convolutions of the global stream: one of `OWN_TRUNKS`, or `torchvision:NAME` for any classification
            network of torchvision whose convolutions end in one map.
        local_trunk: those of the local stream, whose weights are its own; empty for the same kind. A VGG trunk loses
            its last pool there.
        width: factor on the channels of `OWN_TRUNKS`; 1 as published.
        image_size, patch_size: side of what each stream sees, in pixels.
        antialias: whether patches that are made smaller are averaged, as whole images always are, and not merely
            sampled as in the released code.
        last_pool: whether the global VGG trunk keeps its last pool, which the local one never has; without it both
            streams are the same network, for comparisons in which nothing but what they see differs.
        global_head: `gap`: mean over the map, linear layer (the thesis). `conv1x1`: two 1 x 1 convolutions of
            `head_width` channels with ReLU before that (the released code).
        local: `attention` over the states of the LSTM (row A3), `lstm`: its last state (A2), `cnn`: no LSTM (A1),
            `mlp`: two linear layers with as many parameters as LSTM and attention, `spatial`: the form of the thesis'
            chapter 7, `none`: no local stream (A0).
        time_attention: one vector `per-step` without bias (eq. 3.6), or one `shared` by all steps with a bias (released
            code), which cancels in the softmax.
        steps, hidden, layers: T, size of the LSTM's states, number of stacked LSTMs.
        lstm_start: initial weights of the LSTM: `uniform` as torch draws them, or `orthogonal` recurrent ones and twice
            Glorot's for inputs, with which a short training gets off the ground.
        state_std: deviation of the initial weights of a classifier on the LSTM's states.
        local_weight: lambda' of the local cross-entropy and of the local logits in the joint prediction.
        rank_weight: lambda of the ranking loss; 0 leaves it out.
        rank_margin: its margin.
        rank_sign: `plus`: max(0, p_global - p_local + margin), eq. 3.11 as printed. `minus`: the margin subtracted, as
            the thesis' prose says.
        rank_detach: whether p_global is a mere reference that the ranking loss does not move.
        key_channels: of the local map, for scores; the rest are values (`spatial`).
        basis: `fixed` cosines of two coordinates, or `learned` from them (`spatial`).
        basis_size: cosines per coordinate (`spatial`).
        score_scale: `none` as in the thesis' prose, or `sqrt`: divided by the root of the length, as in eq. 7.1
            (`spatial`).
    """

    trunk: str = text("vgg19")
    local_trunk: str = text("")
    width: float = number(1.0, above=0, at_most=4)
    image_size: int = whole(448, at_least=SMALL_STRIDE)
    patch_size: int = whole(224, at_least=SMALL_STRIDE)
    antialias: bool = switch(False)
    last_pool: bool = switch(True)
    global_head: str = choice("gap", "conv1x1")
    head_width: int = whole(1024, at_least=1)
    local: str = choice("attention", "lstm", "cnn", "mlp", "spatial", "none")
    time_attention: str = choice("per-step", "shared")
    steps: int = whole(10, at_least=1)
    hidden: int = whole(512, at_least=1)
    layers: int = whole(2, at_least=1)
    lstm_start: str = choice("uniform", "orthogonal")
    state_std: float = number(0.01, above=0)
    local_weight: float = number(1.0, at_least=0)
    rank_weight: float = number(0.5, at_least=0)
    rank_margin: float = number(0.5, at_least=0, at_most=1)
    rank_sign: str = choice("plus", "minus")
    rank_detach: bool = switch(False)
    key_channels: int = whole(32, at_least=1)
    basis: str = choice("fixed", "learned")
    basis_size: int = whole(8, at_least=1)
    score_scale: str = choice("none", "sqrt")

    def plain(self) -> dict[str, Any]:
        """All options as plain JSON data; `parse_twostream` of it gives an equal object."""
        return dataclasses.asdict(self)

    def trunk_of(self, stream: str) -> str:
        """The trunk's name of the `global` or the `local` stream."""
        return self.local_trunk or self.trunk if stream == "local" else self.trunk


def parse_twostream(architecture: Mapping[str, Any]) -> TwoStreamOptions:
    """Options from plain data, checked and completed with defaults.

    Raises:
        ModelError: an unknown option, a value that is not possible, or an unknown trunk.
    """
    options = TwoStreamOptions(**read_fields(TwoStreamOptions, architecture, "two-stream"))
    for key in ("trunk", "local_trunk"):
        name = getattr(options, key)
        known = name in OWN_TRUNKS or re.fullmatch(rf"{TORCHVISION}[a-z0-9_]+", name)
        if not known and (name or key == "trunk"):
            raise ModelError(
                f"two-stream: {key} = {name!r}: must be one of {', '.join(OWN_TRUNKS)} or {TORCHVISION}NAME"
            )
    for stream, key in (("global", "image_size"), ("local", "patch_size")):
        stride = SMALL_STRIDE if options.trunk_of(stream).startswith("vgg6") else STRIDE
        if getattr(options, key) < stride:
            raise ModelError(
                f"two-stream: {key} = {getattr(options, key)}: {options.trunk_of(stream)} takes {stride} and more"
            )
    return options
