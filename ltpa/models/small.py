"""Small networks without attention: fully connected, and one convolution (baselines of Mnih et al. 2014)."""

from collections import OrderedDict

from torch import Tensor, nn

from ltpa.models.base import AttentionClassifier
from ltpa.models.families.conv2 import STRIDE, WINDOW
from ltpa.models.families.conv2 import Options as ConvOptions
from ltpa.models.families.mlp import Options as MlpOptions
from ltpa.models.small_options import SmallOptions


def seen(x: Tensor, channels: str) -> Tensor:
    """Images (N, 3, S, S) as the network looks at them: where it is `grey` (N, 1, S, S), the mean of the channels."""
    return x.mean(dim=1, keepdim=True) if channels == "grey" else x


class SmallClassifier(AttentionClassifier):
    """`body` makes a vector of images, a linear layer logits of it. Weights begin as torch draws them."""

    def __init__(
        self, options: SmallOptions, num_classes: int, image_size: int, body: nn.Module, feature_dim: int
    ) -> None:
        super().__init__(options.plain(), num_classes, image_size)
        self.channels = options.channels
        self.body, self.head = body, nn.Linear(feature_dim, num_classes)
        self.feature_dim = feature_dim

    def reset_parameters(self) -> None:
        """Draw the weights of every layer as torch does by default."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
                part.reset_parameters()

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """No map of these networks can be attended to."""
        return {}

    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the last linear layer."""
        self.check_input(x)
        return self.body(seen(x, self.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head(self.features(x))


def build_mlp(options: MlpOptions, num_classes: int, image_size: int) -> SmallClassifier:
    """Two fully connected layers with ReLU before the last: FC-64 and FC-256."""
    units = options.units(options.hidden)
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(options.inputs * image_size**2, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
    )
    return SmallClassifier(options, num_classes, image_size, body, units)


def build_conv2(options: ConvOptions, num_classes: int, image_size: int) -> SmallClassifier:
    """8 filters of 10 x 10 at a stride of 5, then 256 units."""
    filters, units = options.units(options.filters), options.units(options.hidden)
    side = (image_size - WINDOW) // STRIDE + 1
    parts = OrderedDict(
        conv=nn.Conv2d(options.inputs, filters, WINDOW, STRIDE),
        relu=nn.ReLU(),
        flatten=nn.Flatten(),
        hidden=nn.Linear(filters * side**2, units),
        last=nn.ReLU(),
    )
    return SmallClassifier(options, num_classes, image_size, nn.Sequential(parts), units)
