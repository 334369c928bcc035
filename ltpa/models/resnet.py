"""Pre-activation residual networks (He et al. 2016): RN-164."""

from collections.abc import Collection

from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.models.blocks import scale_gradient
from ltpa.models.families.resnet import Options
from ltpa.models.plain import PlainClassifier

STEM_CHANNELS = 16
# Output channels and first stride of each stage; the width inside a bottleneck is a quarter of its output.
STAGES = {"stage1": (64, 1), "stage2": (128, 2), "stage3": (256, 2)}


class Bottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, added to the input; convolutions without bias, stride on the first.

    With `first`, the unit opens a stage: a 1x1 convolution of the same stride stands in the shortcut, and it reads
    the activated input, as the residual branch does.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, stride: int, first: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, stride=stride, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False) if first else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h / stride, w / stride)."""
        active = F.relu(self.norm1(x), inplace=True)
        carried = x if self.shortcut is None else self.shortcut(active)
        residual = self.conv1(active)
        residual = self.conv2(F.relu(self.norm2(residual), inplace=True))
        return carried + self.conv3(F.relu(self.norm3(residual), inplace=True))


class ResNetTrunk(nn.Module):
    """conv1 and three stages. Maps images to the raw residual sums {"stage2": ..., "stage3": ...}.

    Gradients that leave the maps named in `averaged` are halved. Nothing is built behind the map `last`.
    """

    def __init__(self, options: Options, averaged: Collection[str] = (), last: str = "stage3") -> None:
        super().__init__()
        channels = options.channels(STEM_CHANNELS)
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.stages = nn.ModuleDict()
        for name, (out, stride) in STAGES.items():
            out_channels, inner = options.channels(out), options.channels(out // 4)
            units = [Bottleneck(channels, inner, out_channels, stride, first=True)]
            units += [
                Bottleneck(out_channels, inner, out_channels, 1, first=False)
                for _ in range(options.blocks_per_stage - 1)
            ]
            self.stages[name] = nn.Sequential(*units)
            channels = out_channels
            if name == last:
                break
        self.averaged = frozenset(averaged)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Local features by level of images (N, 3, S, S): maps of side S/2 and S/4."""
        x = self.conv1(x)
        maps = {}
        for name, stage in self.stages.items():
            x = scale_gradient(stage(x), 0.5 if name in self.averaged else 1)
            maps[name] = x
        return {level: value for level, value in maps.items() if level in Options.known_levels}


class PlainResNet(PlainClassifier):
    """The baseline, whose linear layer starts with bias 0."""

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global random stream."""
        super().reset_parameters()
        nn.init.zeros_(self.head.bias)


def build_resnet(options: Options, num_classes: int, image_size: int) -> PlainResNet:
    """RN of depth 9 x blocks_per_stage + 2 without attention."""
    channels = options.channels(STAGES["stage3"][0])
    neck = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return PlainResNet(options.plain(), num_classes, image_size, ResNetTrunk(options), neck, channels)
