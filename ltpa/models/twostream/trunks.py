"""Convolutional trunks: image to feature map. Names of their tensors are those of torchvision, whose weights fit.

VGG: Simonyan and Zisserman 2015, table 1; ResNet-34: He et al. 2016, table 1.
"""

import torch
from torch import Tensor, nn

from ltpa.core.errors import ModelError
from ltpa.models.families.two_stream import STRIDE, TORCHVISION
from ltpa.models.twostream.vision import torchvision_models

# Channels of each 3 x 3 convolution; 0 is a 2 x 2 max-pool.
VGG: dict[str, tuple[int, ...]] = {
    "vgg6": (64, 64, 0, 128, 128, 0, 256, 256, 0),  # no published network: for images of few pixels
    "vgg11": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg19": (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}
RESNET34 = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels and units of each stage
_NARROWEST = 4
_AFTER = ("avgpool", "classifier", "fc", "heads", "head")  # where the networks of torchvision leave their map


class Trunk(nn.Module):
    """Maps images (B, 3, S, S) to a feature map (B, `channels`, h, w)."""

    channels: int


class VggTrunk(Trunk):
    """The convolutions of a VGG network; `last_pool` false leaves out the fifth max-pool."""

    def __init__(self, name: str, width: float, last_pool: bool) -> None:
        super().__init__()
        base, _, norm = name.partition("_")
        layers: list[nn.Module] = []
        before = 3
        for channels in VGG[base][: None if last_pool else -1]:
            if not channels:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            wide = _channels(channels, width)
            layers.append(nn.Conv2d(before, wide, 3, padding=1))
            layers += [nn.BatchNorm2d(wide)] if norm else []
            layers.append(nn.ReLU(inplace=True))
            before = wide
        self.features = nn.Sequential(*layers)
        self.channels = before
        reset_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """The map of the last convolution, after ReLU and, where it is kept, the last pool."""
        maps: Tensor = self.features(x)
        return maps


class _Unit(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet34Trunk(Trunk):
    """The convolutions of ResNet-34, up to its last map."""

    def __init__(self, width: float) -> None:
        super().__init__()
        before = _channels(64, width)
        self.conv1 = nn.Conv2d(3, before, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        for number, (full, units) in enumerate(RESNET34, start=1):
            channels = _channels(full, width)
            stage = nn.Sequential()
            for unit in range(units):
                stage.append(_Unit(before, channels, 2 if unit == 0 and number > 1 else 1))
                before = channels
            self.add_module(f"layer{number}", stage)
        self.channels = before
        reset_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """The map after the last stage."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, len(RESNET34) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class TorchvisionTrunk(Trunk):
    """The convolutions of a classification network of torchvision: its `features`, or all before its pooling.

    Raises:
        ModelError: torchvision has no network of this name, or its convolutions do not end in one map.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        models = torchvision_models()
        if name not in models.list_models(module=models):
            raise ModelError(f"torchvision has no classification network {name!r}; see its models.list_models()")
        network = models.get_model(name, weights=None)
        # Kept under their own names, so that weights fit by name.
        for child, module in _before_pooling(network):
            self.add_module(child, module)
        with torch.device("meta"):
            probe = torch.empty(1, 3, 4 * STRIDE, 4 * STRIDE)
        try:
            shape = self.to_meta(name)(probe).shape
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise ModelError(_no_map(name)) from error
        if len(shape) != 4 or shape[2:] != (4, 4):
            raise ModelError(_no_map(name))
        self.channels = int(shape[1])

    @staticmethod
    def to_meta(name: str) -> nn.Module:
        """The same layers without memory, for shapes."""
        with torch.device("meta"):
            network = torchvision_models().get_model(name, weights=None)
        return nn.Sequential(*(module for _, module in _before_pooling(network))).eval()

    def forward(self, x: Tensor) -> Tensor:
        """The map of the last convolution."""
        for child in self.children():
            x = child(x)
        return x


def _before_pooling(network: nn.Module) -> list[tuple[str, nn.Module]]:
    names = [name for name, _ in network.named_children()]
    end = next((names.index(name) for name in names if name in _AFTER), len(names))
    return list(network.named_children())[:end]


def _no_map(name: str) -> str:
    return (
        f"the layers of torchvision's {name} do not end in one map of stride {STRIDE}; "
        "name a network such as resnet50, densenet121 or efficientnet_b0"
    )


def build_trunk(name: str, width: float = 1.0, last_pool: bool = True) -> Trunk:
    """The trunk called `name` with fresh weights from torch's global random stream.

    `last_pool` concerns VGG trunks, `width` all but those of torchvision.

    Raises:
        ModelError: torchvision is asked for a network that it does not have or that cannot serve.
    """
    if name.startswith(TORCHVISION):
        return TorchvisionTrunk(name.removeprefix(TORCHVISION))
    return ResNet34Trunk(width) if name == "resnet34" else VggTrunk(name, width, last_pool)


def reset_convolutions(module: nn.Module) -> None:
    """Kaiming normal (fan-out) for convolutions, ones and zeros for batch normalisation, as torchvision draws them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def linear(before: int, after: int, std: float = 0.01) -> nn.Linear:
    """A classifier's linear layer: weights N(0, std), bias 0; 0.01 as in the released code."""
    layer = nn.Linear(before, after)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def _channels(full: int, width: float) -> int:
    return max(_NARROWEST, round(full * width))
