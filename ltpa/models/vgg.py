"""The VGG family: its trunk, the 15-layer baseline, and VGG-GAP (section 4 of the paper)."""

from collections.abc import Collection

from torch import Tensor, nn

from ltpa.models.blocks import ConvBlock, max_pool, scale_gradient
from ltpa.models.families import vgg, vgg_gap
from ltpa.models.options import ClassifierOptions
from ltpa.models.plain import GapClassifier, PlainClassifier

# conv1 ... conv13 as (channels, dropout). The dropout of cifar.torch's vgg_bn_drop; all VGG networks share them.
CONVS = (
    (64, 0.3), (64, 0.0),
    (128, 0.4), (128, 0.0),
    (256, 0.4), (256, 0.4), (256, 0.0),
    (512, 0.4), (512, 0.4), (512, 0.0),
    (512, 0.4), (512, 0.4), (512, 0.0),
)  # fmt: skip
CHANNELS = {"conv7": 256, "conv10": 512, "conv13": 512}
GLOBAL_CHANNELS = 512
# Windows of the max-pools after a layer. The baseline has two more at its end, the others later or none at all.
BASELINE_POOLS = {2: 2, 4: 2, 7: 2, 10: 2}


def convolutions(options: ClassifierOptions, first: int, last: int, pools: dict[int, nn.Module]) -> nn.Sequential:
    """Layers conv`first` ... conv`last`, with `pools[i]` between conv i and conv i+1."""
    layers = nn.Sequential()
    for number in range(first, last + 1):
        before = 3 if number == 1 else options.channels(CONVS[number - 2][0])
        channels, dropout = CONVS[number - 1]
        layers.add_module(f"conv{number}", ConvBlock(before, options.channels(channels), dropout, options.bn_eps))
        if number in pools and number < last:
            layers.add_module(f"pool{number}", pools[number])
    return layers


class VggTrunk(nn.Module):
    """conv1-13 in three sections, whose outputs (after ReLU, before pooling) are the local features.

    Maps images to {"conv7": (N, 256, ...), "conv10": (N, 512, ...), "conv13": (N, 512, ...)}. `pools` are the pools
    after a layer; `before_attention` is one on conv7's map ahead of its use as local features. Gradients that leave
    the maps named in `averaged` are halved. Nothing is built behind the map `last`.
    """

    def __init__(
        self,
        options: ClassifierOptions,
        pools: dict[int, nn.Module],
        before_attention: nn.Module | None = None,
        averaged: Collection[str] = (),
        last: str = "conv13",
    ) -> None:
        super().__init__()
        self.section1 = convolutions(options, 1, 7, pools)
        if before_attention is not None:
            self.section1.add_module("pool_local", before_attention)
        if last != "conv7":
            self.pool7 = pools[7]
            self.section2 = convolutions(options, 8, 10, pools)
        if last == "conv13":
            self.pool10 = pools[10]
            self.section3 = convolutions(options, 11, 13, pools)
        self.last = last
        self.averaged = frozenset(averaged)

    def local(self, level: str, x: Tensor) -> Tensor:
        """Map of `level` from the input of its section."""
        section = self.get_submodule({"conv7": "section1", "conv10": "section2", "conv13": "section3"}[level])
        return scale_gradient(section(x), 0.5 if level in self.averaged else 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Local features by level of images (N, 3, S, S)."""
        maps = {"conv7": self.local("conv7", x)}
        if self.last != "conv7":
            maps["conv10"] = self.local("conv10", self.pool7(maps["conv7"]))
        if self.last == "conv13":
            maps["conv13"] = self.local("conv13", self.pool10(maps["conv10"]))
        return maps


class GlobalBranch(nn.Sequential):
    """Map (N, C, h, w) -> g (N, 512): pool, conv14, pool, conv15, pool, Dropout 0.5, linear fc16.

    Both convolutions end in Dropout 0.4. g is fc16's raw output. All this is as in the published code. The last pool
    takes the maximum over all that is left of the map: 2 x 2 for 32 x 32 images, where it is the third pool of size 2.
    """

    def __init__(self, options: ClassifierOptions, in_channels: int, first_pool: int) -> None:
        channels = options.channels(GLOBAL_CHANNELS)
        super().__init__()
        self.add_module("pool13", max_pool(first_pool))
        self.add_module("conv14", ConvBlock(in_channels, channels, 0.4, options.bn_eps))
        self.add_module("pool14", max_pool(2))
        self.add_module("conv15", ConvBlock(channels, channels, 0.4, options.bn_eps))
        self.add_module("pool15", nn.AdaptiveMaxPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("dropout", nn.Dropout(0.5))
        self.add_module("fc16", nn.Linear(channels, channels))


def late_pools(cub: bool, attends_conv7: bool) -> dict[int, nn.Module]:
    """Pools of the 17-layer networks. For birds a pool of 5 follows conv7, unless its map is already cut to 32 x 32."""
    return {7: max_pool(5 if cub and not attends_conv7 else 2), 10: max_pool(2)}


def build_vgg(options: vgg.Options, num_classes: int, image_size: int) -> PlainClassifier:
    """The baseline VGG: 13 convolutions and 2 linear layers. Each pool halves the map, 32 - 16 - 8 - 4 - 2 - 1.

    The last pool takes the maximum over all that is left; with `pools: cub` a pool of 2 comes before conv13.
    """
    pools: dict[int, nn.Module] = {number: max_pool(size) for number, size in BASELINE_POOLS.items()}
    if options.pools == "cub":
        pools[12] = max_pool(2)
    channels = options.channels(CHANNELS["conv13"])
    neck = nn.Sequential(
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(channels, channels),
        nn.BatchNorm1d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
    )
    trunk = VggTrunk(options, pools)
    return PlainClassifier(options.plain(), num_classes, image_size, trunk, neck, channels)


def build_gap(options: vgg_gap.Options, num_classes: int, image_size: int) -> GapClassifier:
    """VGG-GAP: conv1-13 pooled after conv7 and conv10 only, then the spatial mean and one linear layer."""
    trunk = VggTrunk(options, late_pools(options.pools == "cub", attends_conv7=False))
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    channels = options.channels(CHANNELS["conv13"])
    return GapClassifier(options.plain(), num_classes, image_size, trunk, neck, channels)
