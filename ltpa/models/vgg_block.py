"""VGG with one relational block behind conv7, conv10 or conv13, before the pool."""

from typing import Any

import torch
from torch import Tensor, nn

from ltpa.models.families.vgg_block import Options
from ltpa.models.init import initialise
from ltpa.models.plain import PlainClassifier
from ltpa.models.relational import Block, LocalAttention, NonLocal, ResidualConv, SaganBlock
from ltpa.models.vgg import CHANNELS, VggTrunk, build_vgg


class BlockClassifier(PlainClassifier):
    """`PlainClassifier` whose trunk hands the map of `level` to `block`, and goes on with what comes back."""

    trunk: VggTrunk

    def __init__(
        self,
        architecture: dict[str, Any],
        num_classes: int,
        image_size: int,
        trunk: nn.Module,
        neck: nn.Module,
        feature_dim: int,
        level: str,
        block: Block,
    ) -> None:
        super().__init__(architecture, num_classes, image_size, trunk, neck, feature_dim)
        self.level, self.block = level, block
        if architecture["block"] != "conv":
            self.attention_levels = (level,)

    def reset_parameters(self) -> None:
        """Draw initial weights; those beside the block's as the network without it draws them."""
        for part in (self.trunk, self.neck, self.head):
            initialise(part, self.architecture["bn_weight"], self.architecture["u_std"])
        self.block.reset_parameters()

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, h, w) by layer, that of the block behind it."""
        return self._maps(x)[0]

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """The attention that each position receives, (N, h, w); none of the control."""
        received = self.block.received(self._maps(x)[1])
        return {} if received is None else {self.level: received}

    def block_change(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over positions and channels of (block(x) - x)^2 and of x^2, (N,) float64 each."""
        maps, given = self._maps(x)
        changed = (maps[self.level] - given).double().square().flatten(1).sum(dim=1)
        return changed, given.double().square().flatten(1).sum(dim=1)

    def _maps(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The maps by layer, and what the block was given."""
        self.check_input(x)
        maps: dict[str, Tensor] = {}
        given = value = x
        for level, pool in (("conv7", None), ("conv10", self.trunk.pool7), ("conv13", self.trunk.pool10)):
            value = self.trunk.local(level, value if pool is None else pool(value))
            if level == self.level:
                given, value = value, self.block(value)
            maps[level] = value
        return maps, given


def build_vgg_block(options: Options, num_classes: int, image_size: int) -> BlockClassifier:
    """The baseline VGG with a block; torch's global random stream goes on as behind the network without it."""
    plain = build_vgg(options, num_classes, image_size)
    with torch.random.fork_rng(devices=[]):
        return BlockClassifier(
            options.plain(),
            num_classes,
            image_size,
            plain.trunk,
            plain.neck,
            plain.feature_dim,
            options.block_after,
            make_block(options, options.channels(CHANNELS[options.block_after])),
        )


def make_block(options: Options, channels: int) -> Block:
    """The block that the options describe, on maps of `channels` channels."""
    if options.block == "nonlocal":
        return NonLocal(channels, options.block_function, options.block_pool, options.block_scale)
    if options.block == "sagan":
        return SaganBlock(channels, options.block_pool)
    if options.block == "local":
        return LocalAttention(channels, options.block_window, options.block_heads)
    return ResidualConv(channels)
