"""The two-stream network: a global stream on the image, a local one on a patch, and their joint prediction."""

import dataclasses

import torch
from torch import Tensor, nn

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier
from ltpa.models.families.two_stream import Options
from ltpa.models.twostream.inputs import Shown
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

    def __init__(self, options: Options, channels: int, classes: int) -> None:
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

    def vector(self, maps: Tensor) -> Tensor:
        """Input (B, D) of the linear layer."""
        vector: Tensor = self.addon(maps).mean((2, 3))
        return vector

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (B, C)."""
        logits: Tensor = self.classifier(self.vector(maps))
        return logits


class TwoStream(AttentionClassifier):
    """The network of Shroff 2020, in every form that its `options` name.

    Both streams take images as `ltpa.models.twostream.inputs.shown` gives them; `preprocessing` is that of the global
    stream.
    """

    def __init__(self, options: Options, num_classes: int) -> None:
        super().__init__(options.plain(), num_classes, options.image_size)
        self.options = options
        self.preprocessing = Shown(options.image_size)
        self.global_trunk = build_trunk(options.trunk_of("global"), options.width, options.last_pool)
        self.global_head = GlobalHead(options, self.global_trunk.channels, num_classes)
        self.feature_dim = self.global_head.classifier.in_features
        self.local_trunk: nn.Module | None = None
        self.local_head: LocalHead | None = None
        if options.local != "none":
            trunk = build_trunk(options.trunk_of("local"), options.width, last_pool=False)
            self.local_trunk = trunk
            self.local_head = _HEADS[options.local](options, trunk.channels, num_classes)

    def forward(self, x: Tensor, patches: Tensor | None = None) -> Tensor:
        """Joint logits (B, C) of images (B, 3, S, S) and patches (B, 3, P, P) of `image_size` and `patch_size`.

        Raises:
            ModelError: the network has a local stream and is given no patches.
        """
        outputs = self.outputs(x, patches)
        return self.joint(outputs.global_logits, None if outputs.local is None else outputs.local.logits)

    def outputs(self, images: Tensor, patches: Tensor | None = None) -> Outputs:
        """What each stream says of images and patches."""
        return Outputs(self.see_image(images), None if self.local_head is None else self.see_patch(patches))

    def see_image(self, images: Tensor) -> Tensor:
        """Global logits (B, C)."""
        logits: Tensor = self.global_head(self.local_features(images)["global"])
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Input (B, feature_dim) of the global stream's linear layer."""
        return self.global_head.vector(self.local_features(x)["global"])

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """The global trunk's map, `global` (B, D, h, w)."""
        self._check(x, self.options.image_size, "image_size")
        return {"global": self.global_trunk(x)}

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

    def example(self) -> tuple[Tensor, ...]:
        """An image, and a patch where there is a local stream."""
        sides = (self.image_size, self.options.patch_size)[: 1 if self.local_head is None else 2]
        device = next(self.parameters()).device
        return tuple(torch.empty(1, 3, side, side, device=device) for side in sides)

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


def build_twostream(options: Options, num_classes: int, image_size: int) -> TwoStream:
    """A two-stream network for images of `image_size`, which its options state too."""
    return TwoStream(options, num_classes)
