"""VGG-PAN: progressive attention (Seo et al. 2016) as the paper compares with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ltpa.core.errors import ModelError
from ltpa.models.attention import AttentionUnit, Parametrised, attended_vector
from ltpa.models.base import AttentionClassifier
from ltpa.models.blocks import max_pool
from ltpa.models.families.vgg_pan import Options
from ltpa.models.heads import ConcatHead
from ltpa.models.vgg import CHANNELS, GLOBAL_CHANNELS, GlobalBranch, VggTrunk


class PanClassifier(AttentionClassifier):
    """conv1-10 -> sigmoid gate on conv10's map -> conv11-13 -> softmax attention -> one linear layer.

    Each of the two levels has a global branch of its own. The gate multiplies the map it reads (no sum over
    positions), so its g matters; the last level's does not under `pc` (see `ltpa.models.attention`).
    """

    attention_levels = ("conv10", "conv13")
    gated_levels = ("conv10",)

    def __init__(
        self,
        architecture: dict[str, Any],
        num_classes: int,
        image_size: int,
        trunk: VggTrunk,
        gate_branch: nn.Module,
        last_branch: nn.Module | None,
        unit: AttentionUnit,
    ) -> None:
        super().__init__(architecture, num_classes, image_size)
        self.trunk = trunk
        self.gate_branch = gate_branch
        self.last_branch = last_branch
        self.gate = Parametrised(unit.channels)
        self.unit = unit
        self.head = ConcatHead([unit.channels], num_classes, dropout=0.5)
        self.feature_dim = unit.channels

    def _conv10(self, x: Tensor) -> dict[str, Tensor]:
        self.check_input(x)
        conv7 = self.trunk.local("conv7", x)
        return {"conv7": conv7, "conv10": self.trunk.local("conv10", self.trunk.pool7(conv7))}

    def _gate_and_conv13(self, conv10: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, h, w) whose sigmoid is the gate, and conv13's map from the gated map of conv10."""
        scores = self.gate(conv10, g)
        return scores, self._conv13(conv10, scores.sigmoid())

    def _conv13(self, conv10: Tensor, gate: Tensor) -> Tensor:
        return self.trunk.local("conv13", self.trunk.pool10(conv10 * gate.to(conv10.dtype).unsqueeze(1)))

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, h, w) by layer name, from input to output; conv10's is the one before the gate."""
        maps = self._conv10(x)
        _, conv13 = self._gate_and_conv13(maps["conv10"], self.gate_branch(maps["conv10"]))
        return {**maps, "conv13": conv13}

    def _global_vectors(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """g of the gate and, where the last level looks at one, g of that level."""
        maps = self.local_features(x)
        last = None if self.last_branch is None else self.last_branch(maps["conv13"])
        return self.gate_branch(maps["conv10"]), last

    def _compared(self, x: Tensor, query: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The gate's scores, conv13's map, and the last level's g; the global vectors from `query` where given."""
        conv10 = self._conv10(x)["conv10"]
        if query is not None:
            g, last = self._global_vectors(query)
            return *self._gate_and_conv13(conv10, g), last
        scores, conv13 = self._gate_and_conv13(conv10, self.gate_branch(conv10))
        return scores, conv13, None if self.last_branch is None else self.last_branch(conv13)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head.linear(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Input (N, feature_dim) of the linear layer."""
        _, conv13, last = self._compared(x, None)
        return self.head.features([self.unit(conv13, last)[0]])

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """conv10: the gate (N, h, w), each value in (0, 1); conv13: attention weights that sum to 1 over the map."""
        scores, conv13, last = self._compared(x, query)
        return {"conv10": scores.sigmoid(), "conv13": self.unit(conv13, last)[1]}

    def weighted_maps(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By level the map (N, C, h, w) that is gated (conv10) or averaged (conv13), and its weights (N, h, w)."""
        conv10 = self._conv10(x)["conv10"]
        gate = self.gate(conv10, self.gate_branch(conv10)).sigmoid()
        return {"conv10": (conv10, gate), "conv13": self._weighed(self._conv13(conv10, gate))}

    def vectors_under(self, maps: Mapping[str, tuple[Tensor, Tensor]], weights: Mapping[str, Tensor]) -> list[Tensor]:
        """The one vector (N, C) that is classified. Behind another gate conv13 is computed and weighed anew."""
        conv13, own = maps["conv13"]
        if "conv10" in weights:
            conv13, own = self._weighed(self._conv13(maps["conv10"][0], weights["conv10"]))
        return [attended_vector(conv13, weights.get("conv13", own))]

    def _weighed(self, conv13: Tensor) -> tuple[Tensor, Tensor]:
        return self.unit.weigh(conv13, None if self.last_branch is None else self.last_branch(conv13))

    def classify(self, vectors: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes) from the attended vector (N, C)."""
        return self.head.linear(self.head.features(vectors))

    def flow(self) -> list[tuple[str, nn.Module]]:
        """Its modules with their roles, in the order in which images pass; the trunk's last section sees the gate."""
        last = [] if self.last_branch is None else [("branch", self.last_branch)]
        return [
            ("trunk", self.trunk.section1),
            ("trunk", self.trunk.section2),
            ("branch", self.gate_branch),
            ("units", self.gate),
            ("trunk", self.trunk.section3),
            *last,
            ("units", self.unit),
            ("head", self.head),
        ]

    def log_attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Logarithms of the maps by level, (N, h, w) float64."""
        scores, conv13, last = self._compared(x, query)
        return {"conv10": logsigmoid(scores.double()), "conv13": self.unit.log_weights(conv13, last)}

    def global_descriptor(self, x: Tensor, level: str | None = None) -> Tensor:
        """Global feature vector g (N, d) of `level` (default: conv13).

        Raises:
            ModelError: no such level, or it has no g.
        """
        level = level or self.attention_levels[-1]
        vector = dict(zip(self.attention_levels, self._global_vectors(x), strict=True)).get(level)
        if vector is None:
            raise ModelError(f"no global descriptor at {level!r}; conv10 has one, conv13 unless built with `local`")
        return vector


def build_pan(options: Options, num_classes: int, image_size: int) -> PanClassifier:
    """VGG-PAN: two global branches, from conv10's map and from conv13's."""
    channels = options.channels(CHANNELS["conv13"])
    pools: dict[int, nn.Module] = {7: max_pool(5 if options.pools == "cub" else 2), 10: max_pool(2)}
    averaged = ("conv10", "conv13") if options.legacy_grad_avg else ()
    unit = AttentionUnit(channels, options.channels(GLOBAL_CHANNELS), options.compatibility, "softmax", "global")
    return PanClassifier(
        options.plain(),
        num_classes,
        image_size,
        trunk=VggTrunk(options, pools, averaged=averaged),
        gate_branch=GlobalBranch(options, options.channels(CHANNELS["conv10"]), first_pool=4),
        last_branch=GlobalBranch(options, channels, first_pool=2) if unit.uses_global else None,
        unit=unit,
    )
