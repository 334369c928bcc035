"""Spatial Transformer (Jaderberg et al., NIPS 2015): a network that chooses the window which a small CNN classifies.

theta maps coordinates of the output to those of the image, both from -1 to 1, so a scale below 1 zooms in:
(x_s, y_s) = A (x_t, y_t, 1). Sampling is bilinear, with zeros outside. The localisation network's last layer begins
with zeros, which are added to the identity; translations pass through tanh, because a window that has left the image
gets no gradient back.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.models.families.stn import Options
from ltpa.models.small import SmallClassifier, seen

CORNERS = False  # `align_corners`, which must be the same for the grid and the sampler


def sample(x: Tensor, theta: Tensor, output: int) -> Tensor:
    """What the window theta (N, 2, 3) shows of images (N, C, S, S): (N, C, output, output)."""
    grid = F.affine_grid(theta, [len(x), x.shape[1], output, output], align_corners=CORNERS)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=CORNERS)


def tent(centre: Tensor, half: Tensor, size: int) -> Tensor:
    """Maps (N, size, size) with one peak, at `centre` (N, 2), that fall to zero at `half` (N, 2) from it, and sum to 1.

    Both are x and y in coordinates from -1 to 1. A flat window would have its first pixel, its corner, as its highest.
    A window that lies outside the image gives an even map.
    """
    pixels = (2 * torch.arange(size, device=centre.device, dtype=centre.dtype) + 1) / size - 1
    reach = half + 1 / size
    along = (1 - (pixels[None, None, :] - centre[:, :, None]).abs() / reach[:, :, None]).clamp(min=0)
    maps = along[:, 1, :, None] * along[:, 0, None, :]
    total = maps.sum(dim=(1, 2), keepdim=True)
    return torch.where(total > 0, maps / total.clamp(min=1e-30), torch.full_like(maps, 1 / size**2))


class Localisation(nn.Module):
    """Images (N, C, S, S) -> theta (N, 2, 3): two convolutions of 5 x 5 with pools, two linear layers."""

    def __init__(self, options: Options, image_size: int) -> None:
        super().__init__()
        first, second, units = options.units(8), options.units(16), options.units(32)
        self.transform, self.zoom = options.transform, options.zoom
        side = image_size // 2 // 2
        self.body = nn.Sequential(
            nn.Conv2d(options.inputs, first, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * side**2, units),
            nn.ReLU(),
        )
        self.last = nn.Linear(units, {"affine": 6, "attention": 3, "translation": 2}[options.transform])

    def start(self) -> None:
        """Set the last layer to the identity; a fixed zoom stays."""
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The parameters of the transform: what the last layer gives, added to the identity."""
        numbers = self.last(self.body(x))
        shift = numbers[:, -2:].tanh()
        if self.transform == "affine":
            linear = numbers[:, :4].view(-1, 2, 2) + torch.eye(2, device=x.device, dtype=numbers.dtype)
        else:
            scale = 1 + numbers[:, 0] if self.transform == "attention" else numbers.new_full((len(x),), self.zoom)
            linear = torch.diag_embed(scale[:, None].expand(-1, 2))
        return torch.cat([linear, shift[:, :, None]], dim=2)


class StnClassifier(SmallClassifier):
    """The CNN `body` classifies what `localisation` cuts out of the image."""

    attention_levels = ("window",)

    def __init__(self, options: Options, num_classes: int, image_size: int, body: nn.Module, feature_dim: int) -> None:
        super().__init__(options, num_classes, image_size, body, feature_dim)
        self.localisation = Localisation(options, image_size)
        self.output = options.output
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights as torch does, and let the window begin with the identity."""
        super().reset_parameters()
        self.localisation.start()

    def theta(self, x: Tensor) -> Tensor:
        """The transform (N, 2, 3) of each image (N, 3, S, S)."""
        self.check_input(x)
        return self.localisation(seen(x, self.channels))

    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the last linear layer."""
        return self.body(sample(seen(x, self.channels), self.theta(x), self.output))

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """`window`: a tent (N, S, S) over the smallest upright rectangle around the window."""
        theta = self.theta(x)
        return {"window": tent(theta[:, :, 2], theta[:, :, :2].abs().sum(dim=2), self.image_size)}


def build_stn(options: Options, num_classes: int, image_size: int) -> StnClassifier:
    """Two blocks of convolution 3 x 3, BN, ReLU and pool, of 32 and 64 channels, and 64 units behind the window."""
    first, second, units = options.units(32), options.units(64), options.units(64)
    body = nn.Sequential(
        nn.Conv2d(options.inputs, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (options.output // 2 // 2) ** 2, units),
        nn.ReLU(),
    )
    return StnClassifier(options, num_classes, image_size, body, units)
