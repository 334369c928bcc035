"""The two-stream network: a global stream on the image, a local one on a patch, and their joint prediction."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ltpa.core.errors import ModelError
from ltpa.models.twostream.options import TwoStreamOptions, parse_twostream
from ltpa.models.twostream.spatial import SpatialHead
from ltpa.models.twostream.temporal import CnnHead, LocalHead, LocalOutputs, MlpHead, RecurrentHead
from ltpa.models.twostream.trunks import build_trunk, linear, reset_convolutions

_HEADS: dict[str, type[LocalHead]] = {
    "cnn": CnnHead,
    "mlp": MlpHead,
    "lstm": RecurrentHead,
    "attention": RecurrentHead,
    "spatial": SpatialHead,
}


@dataclasses.dataclass
class Outputs:
    """Global logits (B, C), and what the local stream says; None without one."""

    global_logits: Tensor
    local: LocalOutputs | None


class GlobalHead(nn.Module):
    """Mean over the map and a linear layer; in the form `conv1x1` after two 1 x 1 convolutions with ReLU."""

    def __init__(self, options: TwoStreamOptions, channels: int, classes: int) -> None:
        super().__init__()
        self.addon = nn.Sequential()
        if options.global_head == "conv1x1":
            wide = options.head_width
            self.addon = nn.Sequential(
                nn.Conv2d(channels, wide, 1), nn.ReLU(inplace=True), nn.Conv2d(wide, wide, 1), nn.ReLU(inplace=True)
            )
            reset_convolutions(self.addon)
            channels = wide
        self.classifier = linear(channels, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (B, C)."""
        logits: Tensor = self.classifier(self.addon(maps).mean((2, 3)))
        return logits


class TwoStream(nn.Module):
    """The network of Shroff 2020, in every form that `TwoStreamOptions` names.

    Attributes:
        options, architecture: what it was built from, as an object and as plain data.
        num_classes: C.
    """

    def __init__(self, options: TwoStreamOptions, num_classes: int) -> None:
        super().__init__()
        self.options, self.architecture, self.num_classes = options, options.plain(), num_classes
        self.global_trunk = build_trunk(options.trunk_of("global"), options.width, options.last_pool)
        self.global_head = GlobalHead(options, self.global_trunk.channels, num_classes)
        self.local_trunk: nn.Module | None = None
        self.local_head: LocalHead | None = None
        if options.local != "none":
            trunk = build_trunk(options.trunk_of("local"), options.width, last_pool=False)
            self.local_trunk = trunk
            self.local_head = _HEADS[options.local](options, trunk.channels, num_classes)

    def forward(self, images: Tensor, patches: Tensor | None = None) -> Outputs:
        """Both streams on normalised images (B, 3, S, S) and patches (B, 3, P, P) of `image_size` and `patch_size`."""
        return Outputs(self.see_image(images), None if self.local_head is None else self.see_patch(patches))

    def see_image(self, images: Tensor) -> Tensor:
        """Global logits (B, C)."""
        self._check(images, self.options.image_size, "image_size")
        logits: Tensor = self.global_head(self.global_trunk(images))
        return logits

    def patch_maps(self, patches: Tensor | None) -> Tensor:
        """The local trunk's map (B, D, h, w) of patches; see `see_map` for what comes of it."""
        if self.local_trunk is None or patches is None:
            raise ModelError("two-stream: patches belong to a network with a local stream, and each such needs them")
        self._check(patches, self.options.patch_size, "patch_size")
        maps: Tensor = self.local_trunk(patches)
        return maps

    def see_map(self, maps: Tensor) -> LocalOutputs:
        """What the local stream makes of its trunk's map."""
        if self.local_head is None:
            raise ModelError("two-stream: this network has no local stream (local = 'none')")
        outputs: LocalOutputs = self.local_head(maps)
        return outputs

    def see_patch(self, patches: Tensor | None) -> LocalOutputs:
        """What the local stream says of patches."""
        return self.see_map(self.patch_maps(patches))

    def joint(self, global_logits: Tensor, local_logits: Tensor | None) -> Tensor:
        """z_global + lambda' z_local; without a local stream z_global."""
        return global_logits if local_logits is None else global_logits + self.options.local_weight * local_logits

    def streams(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of the `global` and the `local` stream, which have learning rates of their own."""
        groups: dict[str, list[nn.Parameter]] = {"global": [], "local": []}
        for name, parameter in self.named_parameters():
            groups[name.partition("_")[0]].append(parameter)
        return groups

    def _check(self, x: Tensor, size: int, key: str) -> None:
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise ModelError(
                f"two-stream: input of shape {tuple(x.shape)}; with {key} {size} it takes (N, 3, {size}, {size})"
            )


def build_twostream(architecture: Mapping[str, Any], num_classes: int) -> TwoStream:
    """A two-stream network with fresh weights from torch's global random stream.

    Raises:
        ModelError: an option is unknown or not possible.
    """
    return TwoStream(parse_twostream(architecture), num_classes)
