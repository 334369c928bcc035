"""What every network of the benchmark offers."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.init import initialise


class AttentionClassifier(nn.Module):
    """An image classifier that can show where it looks.

    Images are float tensors (N, 3, S, S) in the network's own normalisation; `preprocessing` makes them from raw RGB.
    Except where noted, methods run in the module's current mode: call `eval()` first for predictions.

    Attributes:
        architecture: every option of the network as plain data; `ltpa.models.registry.build_model` rebuilds it.
        num_classes: length of a row of logits.
        image_size: side S of the images in pixels.
        feature_dim: length of a row of `features`.
        attention_levels: keys of `attention`, from input to output; empty for networks without trained attention.
        classifies: whether logits are those of one class per image.
        gated_levels: those whose map multiplies features; the maps of all others are weights of a mean.
        preprocessing: maps raw RGB (N, 3, S, S), floats 0-255, to network input; differentiable. Identity until set.
        metadata: what `ltpa.models.store.load` read beside the weights; empty for a new network.
    """

    feature_dim: int
    classifies: ClassVar[bool] = True
    attention_levels: tuple[str, ...] = ()
    gated_levels: tuple[str, ...] = ()

    def __init__(self, architecture: dict[str, Any], num_classes: int, image_size: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = image_size
        self.preprocessing: nn.Module = nn.Identity()
        self.metadata: dict[str, Any] = {}

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global random stream."""
        initialise(self, self.architecture["bn_weight"], self.architecture["u_std"])

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); their softmax is the predicted distribution."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the last linear layer."""

    @abstractmethod
    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, h, w) of the layers that attention can read, from input to output."""

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Scalar training loss on `targets` (N,), class indices: the mean cross-entropy."""
        return self.loss_and_logits(x, targets)[0]

    def loss_and_logits(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss and the logits (N, classes) of one and the same pass.

        A network may draw samples here, from torch's global stream of the device: training saves and resumes it.
        """
        logits = self(x)
        return F.cross_entropy(logits, targets), logits

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Trained attention maps (N, h, w) by level; none for networks without trained attention.

        With `query`, images of the same number as `x` or a single one, the local features come from `x` and the global
        vector from `query` (appendix A.5 of the paper).
        """
        return {}

    def log_attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Logarithms of `attention`, (N, h, w) float64 by level; minus infinity where a weight is zero.

        Networks that make their maps from scores take the logarithms from these, so that no weight underflows.
        """
        return {level: maps.double().log() for level, maps in self.attention(x, query).items()}

    def weighted_maps(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By level the map (N, C, h, w) that attention weighs, and the weights (N, h, w); none without attention.

        With `vectors_under` and `classify` it says what the network makes of other weights:
        `classify(vectors_under(weighted_maps(x), {}))` are the logits of `x`.
        """
        return {}

    def vectors_under(self, maps: Mapping[str, tuple[Tensor, Tensor]], weights: Mapping[str, Tensor]) -> list[Tensor]:
        """The vectors (N, C) that are classified when `weights` (N, h, w), by level, stand in for the network's own.

        Raises:
            ModelError: the network has no attention.
        """
        raise ModelError(f"a {self.architecture['family']} network has no attention whose weights could be others")

    def classify(self, vectors: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes) of such vectors.

        Raises:
            ModelError: the network has no attention.
        """
        raise ModelError(f"a {self.architecture['family']} network has no attended vectors to classify")

    def flow(self) -> list[tuple[str, nn.Module]]:
        """Its modules with their roles, in the order in which images pass; none for networks without attention."""
        return []

    def global_descriptor(self, x: Tensor, level: str | None = None) -> Tensor:
        """Global feature vector g (N, d) that `level` (default: the last) compares its local features with.

        Raises:
            ModelError: the network has no such vector.
        """
        raise ModelError(f"a {self.architecture['family']} network without attention has no global descriptor")

    def start_from(self, source: "AttentionClassifier") -> bool:
        """Take the weights of `source` by a rule of the class's own; False where it has none (`ltpa.models.starting`).

        Raises:
            ModelError: the network does not start from such a one.
        """
        return False

    def example(self) -> tuple[Tensor, ...]:
        """What `forward` takes, for one image: uninitialised tensors of the right shapes on the network's device."""
        device = next(self.parameters()).device
        return (torch.empty(1, 3, self.image_size, self.image_size, device=device),)

    def check_input(self, x: Tensor) -> None:
        """Raise `ModelError` unless `x` is a batch of RGB images of the size the network is built for."""
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != self.image_size or x.shape[3] != self.image_size:
            raise ModelError(
                f"input of shape {tuple(x.shape)} does not fit: this network takes (N, 3, {self.image_size}, "
                f"{self.image_size}); resize the images, or build the network with another image_size"
            )
