"""The two-stream network (Shroff 2020): a global stream on the image, a local one on a patch of it."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.models.options import MAX_SIDE, NetworkOptions, Positive, Share

OWN_TRUNKS = ("vgg6", "vgg6_bn", "vgg11", "vgg11_bn", "vgg19", "vgg19_bn", "resnet34")
TORCHVISION = "torchvision:"
STRIDE = 32  # of a trunk, with its last pool
SMALL_STRIDE = 8  # of vgg6, which is for small images

Side = Annotated[int, Field(ge=SMALL_STRIDE, le=MAX_SIDE)]
Weight = Annotated[float, Field(ge=0, le=1000)]  # of a loss, beside a cross-entropy of weight 1
Wide = Annotated[int, Field(ge=1, le=65536)]
Few = Annotated[int, Field(ge=1, le=1000)]


class Options(NetworkOptions):
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
            Glorot's for inputs, with which a short training makes progress.
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

    builder: ClassVar[str] = "ltpa.models.twostream.network:build_twostream"
    recipes: ClassVar[str] = "two-stream"
    learning: ClassVar[str] = "two-stream"
    trained_on: ClassVar[str] = "fine"
    named_by: ClassVar[tuple[str, ...]] = ("local",)

    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    trunk: str = "vgg19"
    local_trunk: str = ""
    image_size: Side = 448
    patch_size: Side = 224
    antialias: bool = False
    last_pool: bool = True
    global_head: Literal["gap", "conv1x1"] = "gap"
    head_width: Wide = 1024
    local: Literal["attention", "lstm", "cnn", "mlp", "spatial", "none"] = "attention"
    time_attention: Literal["per-step", "shared"] = "per-step"
    steps: Few = 10
    hidden: Wide = 512
    layers: Few = 2
    lstm_start: Literal["uniform", "orthogonal"] = "uniform"
    state_std: Positive = 0.01
    local_weight: Weight = 1.0
    rank_weight: Weight = 0.5
    rank_margin: Share = 0.5
    rank_sign: Literal["plus", "minus"] = "plus"
    rank_detach: bool = False
    key_channels: Wide = 32
    basis: Literal["fixed", "learned"] = "fixed"
    basis_size: Annotated[int, Field(ge=1, le=64)] = 8
    score_scale: Literal["none", "sqrt"] = "none"

    @property
    def sees_patches(self) -> bool:
        """Not without a local stream."""
        return self.local != "none"

    @property
    def has_steps(self) -> bool:
        """Whether the local stream goes through steps."""
        return self.local in ("lstm", "attention", "spatial")

    def trunk_of(self, stream: str) -> str:
        """The trunk's name of the `global` or the `local` stream."""
        return self.local_trunk or self.trunk if stream == "local" else self.trunk

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless `size` is `image_size`."""
        if size != self.image_size:
            raise ModelError(
                f"two-stream: image_size is {self.image_size} in the architecture, and {size!r} is asked for; "
                "name the same size in both places"
            )

    @model_validator(mode="after")
    def _trunks(self) -> Self:
        """Known trunks, and images that are large enough for them."""
        for key in ("trunk", "local_trunk"):
            name = getattr(self, key)
            known = name in OWN_TRUNKS or re.fullmatch(rf"{TORCHVISION}[a-z0-9_]+", name)
            if not known and (name or key == "trunk"):
                raise ValueError(f"{key} = {name!r}: must be one of {', '.join(OWN_TRUNKS)} or {TORCHVISION}NAME")
        for stream, key in (("global", "image_size"), ("local", "patch_size")):
            stride = SMALL_STRIDE if self.trunk_of(stream).startswith("vgg6") else STRIDE
            if getattr(self, key) < stride:
                raise ValueError(f"{key} = {getattr(self, key)}: {self.trunk_of(stream)} takes {stride} and more")
        return self
