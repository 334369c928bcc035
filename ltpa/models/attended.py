"""Networks that classify by attended local features alone: VGG-att, att2, att3 and RN-att, att2."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from ltpa.core.errors import ModelError
from ltpa.models.attention import AttentionUnit, attended_vector
from ltpa.models.base import AttentionClassifier
from ltpa.models.blocks import scale_gradient
from ltpa.models.heads import HEADS, PREDICTIONS, summed_cross_entropy

SHARED = "shared"


class AttendedClassifier(AttentionClassifier):
    """Trunk -> local features l^s -> global vector g -> one attention unit per level -> head.

    `branches` maps `shared`, or every level, to the module that makes g of a map: of the last level's, or of that
    level's own. It is empty where no unit looks at g.
    """

    def __init__(
        self,
        architecture: dict[str, Any],
        num_classes: int,
        image_size: int,
        trunk: nn.Module,
        branches: Mapping[str, nn.Module],
        units: Mapping[str, AttentionUnit],
        head_dropout: float,
    ) -> None:
        super().__init__(architecture, num_classes, image_size)
        self.trunk = trunk
        self.branches = nn.ModuleDict(branches)
        self.units = nn.ModuleDict(units)
        channels = [unit.channels for unit in units.values()]
        self.head = HEADS[architecture["head"]](channels, num_classes, head_dropout, architecture["head_norm"])
        self.predict = PREDICTIONS[architecture["prediction"]]
        self.attention_levels = tuple(units)
        self.feature_dim = sum(channels)

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, h, w) of the trunk by layer name, from input to output."""
        self.check_input(x)
        return self.trunk(x)

    def _global_vectors(self, maps: dict[str, Tensor]) -> dict[str, Tensor | None]:
        """g for every level, from the trunk's maps; None where the level's unit does not look at it."""
        vectors: dict[str, Tensor | None] = dict.fromkeys(self.attention_levels)
        if SHARED in self.branches:
            last = maps[self.attention_levels[-1]]
            factor = 1 / len(vectors) if self.architecture["legacy_grad_avg"] else 1
            return dict.fromkeys(vectors, scale_gradient(self.branches[SHARED](last), factor))
        vectors.update({level: branch(maps[level]) for level, branch in self.branches.items()})
        return vectors

    def _compared(self, x: Tensor, query: Tensor | None) -> dict[str, tuple[Tensor, Tensor | None]]:
        """The local features and g of every level; g from `query` where given."""
        maps = self.local_features(x)
        vectors = self._global_vectors(maps if query is None else self.local_features(query))
        return {level: (maps[level], vectors[level]) for level in self.units}

    def _attend(self, x: Tensor, query: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """(g_a, a) of every level."""
        return {level: self.units[level](*pair) for level, pair in self._compared(x, query).items()}

    def level_logits(self, x: Tensor) -> list[Tensor]:
        """Logits (N, classes) of every classifier: one per level for `indep`, a single joint one for `concat`."""
        return self.head.level_logits([vector for vector, _ in self._attend(x).values()])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); for `indep` of all levels' classifiers together, by the rule `prediction`."""
        return self.predict(self.level_logits(x))

    def loss_and_logits(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over the network's classifiers of their mean cross-entropy, and the logits (N, classes)."""
        level_logits = self.level_logits(x)
        return summed_cross_entropy(level_logits, targets), self.predict(level_logits)

    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the last linear layer; for `indep` those of all levels side by side."""
        return self.head.features([vector for vector, _ in self._attend(x).values()])

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Attention maps (N, h, w) by level, each summing to 1; with `query`, g is that of the query images."""
        return {level: weights for level, (_, weights) in self._attend(x, query).items()}

    def weighted_maps(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By level the map l (N, C, h, w) whose vectors are averaged, and their weights a (N, h, w)."""
        units = cast(dict[str, AttentionUnit], dict(self.units.items()))
        return {level: units[level].weigh(*pair) for level, pair in self._compared(x, None).items()}

    def vectors_under(self, maps: Mapping[str, tuple[Tensor, Tensor]], weights: Mapping[str, Tensor]) -> list[Tensor]:
        """g_a (N, C) of every level from its `weighted_maps`, with other weights for the levels of `weights`."""
        return [attended_vector(local, weights.get(level, own)) for level, (local, own) in maps.items()]

    def classify(self, vectors: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes) from one g_a (N, C) per level."""
        return self.predict(self.head.level_logits(vectors))

    def flow(self) -> list[tuple[str, nn.Module]]:
        """Its modules with their roles, `trunk`, `branch`, `units` or `head`, in the order in which images pass."""
        return [
            ("trunk", self.trunk),
            *(("branch", branch) for branch in self.branches.values()),
            *(("units", unit) for unit in self.units.values()),
            ("head", self.head),
        ]

    def log_attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Logarithms of the attention maps by level, (N, h, w) float64."""
        units = cast(dict[str, AttentionUnit], dict(self.units.items()))
        return {level: units[level].log_weights(*pair) for level, pair in self._compared(x, query).items()}

    def global_descriptor(self, x: Tensor, level: str | None = None) -> Tensor:
        """Global feature vector g (N, d) that `level` (default: the last) uses, before any projection.

        Raises:
            ModelError: no such level, or its compatibility has no g.
        """
        level = level or self.attention_levels[-1]
        vector = self._global_vectors(self.local_features(x)).get(level)
        if vector is None:
            raise ModelError(
                f"no global descriptor at {level!r}: levels are {', '.join(self.attention_levels)}, and their "
                f"compatibility is {self.architecture['compatibility']!r} (`local` has none)"
            )
        return vector
