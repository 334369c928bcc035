"""Classifiers without trained attention: the VGG and ResNet baselines, and VGG-GAP."""

from typing import Any

from torch import Tensor, einsum, nn

from ltpa.models.base import AttentionClassifier
from ltpa.models.blocks import in_full_precision, widened


class PlainClassifier(AttentionClassifier):
    """A trunk of convolutions, a neck that makes one vector of its last map, and one linear layer."""

    def __init__(
        self,
        architecture: dict[str, Any],
        num_classes: int,
        image_size: int,
        trunk: nn.Module,
        neck: nn.Module,
        feature_dim: int,
    ) -> None:
        super().__init__(architecture, num_classes, image_size)
        self.trunk = trunk
        self.neck = neck
        self.head = nn.Linear(feature_dim, num_classes)
        self.feature_dim = feature_dim

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, h, w) of the trunk by layer name, from input to output."""
        self.check_input(x)
        return self.trunk(x)

    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the linear layer."""
        return self.neck([*self.local_features(x).values()][-1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head(self.features(x))


class GapClassifier(PlainClassifier):
    """VGG-GAP (Zhou et al. 2016): the classifier reads the last map's spatial mean, so its weights locate classes."""

    def class_activation_map(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Class activation maps (N, h, w): the last map weighted by the classifier's weights of one class per image.

        Args:
            x: images (N, 3, S, S).
            classes: class indices (N,); default: those the network predicts.
        """
        last = self.local_features(x)["conv13"]
        if classes is None:
            classes = self.head(self.neck(last)).argmax(dim=1)
        return self._weighed(last, classes)

    @in_full_precision
    def _weighed(self, last: Tensor, classes: Tensor) -> Tensor:
        return einsum("nchw,nc->nhw", last, widened(self.head.weight)[classes])
