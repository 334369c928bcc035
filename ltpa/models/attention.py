"""The attention module of "Learn to Pay Attention", section 3.

Notation of the paper: l_i are the n feature vectors of a layer's map, g is the global feature vector, c_i the
compatibility of the two, a_i the attention weights, g_a the vector that replaces g.

A note on eq. 2: <u, l_i + g> = <u, l_i> + <u, g>, and the second term is the same for every i. The softmax of eq. 1
does not change when a constant is added to all c_i, so under `pc` with softmax g has no effect on the network's output
and the gradient of everything that computes it is zero. What rounding would leave of that zero, much in reduced
precision, is not let through. g is computed all the same, as the paper has it; `ltpa.models.prune.prune_dead_branch`
removes it.
"""

from torch import Tensor, nn, tanh
from torch.nn import functional as F

from ltpa.models.blocks import in_full_precision, normalised_vector, scale_gradient, widened


def _vectors(local: Tensor) -> Tensor:
    """The map (N, C, h, w) as its n vectors l_i (N, h * w, C), without a copy.

    Products with it leave the map's gradient with channels innermost, as the networks are trained; otherwise each layer
    below would read it across memory.
    """
    return local.flatten(2).transpose(1, 2)


def attended_vector(local: Tensor, weights: Tensor) -> Tensor:
    """g_a = sum_i a_i l_i (N, C) of the map `local` (N, C, h, w) under weights a (N, h, w)."""
    return (weights.to(local.dtype).flatten(1).unsqueeze(1) @ _vectors(local)).squeeze(1)


class Parametrised(nn.Module):
    """Eq. 2, `pc`: c_i = <u, l_i + g>, by default with a bias as in the published code.

    Computed as <u, l_i> + <u, g>: the same number without writing the map l + g to memory.

    Args:
        bias: whether the scores have a bias.
        shift_matters: whether a constant added to all scores of a map changes what is made of them. Where it does not,
            g and the bias of u get gradients of exactly zero.
    """

    uses_global = True

    def __init__(self, channels: int, bias: bool = True, shift_matters: bool = True) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, 1, 1, bias=bias)
        self.shift_matters = shift_matters

    @in_full_precision
    def forward(self, local: Tensor, g: Tensor) -> Tensor:
        """Scores (N, h, w) of `local` (N, C, h, w) with `g` (N, C)."""
        factor = 1 if self.shift_matters else 0
        weight = self.u.weight.to(local.dtype)
        bias = None if self.u.bias is None else scale_gradient(self.u.bias.to(local.dtype), factor)
        from_local = F.conv2d(local, weight, bias).squeeze(1)
        from_global = F.linear(scale_gradient(g, factor), weight.flatten(1))
        return from_local + from_global.unsqueeze(2)


class DotProduct(nn.Module):
    """Eq. 3, `dp`: c_i = <l_i, g>; no scale, no bias, no parameters."""

    uses_global = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    @in_full_precision
    def forward(self, local: Tensor, g: Tensor) -> Tensor:
        """Scores (N, h, w) of `local` (N, C, h, w) with `g` (N, C)."""
        return (_vectors(local) @ g.unsqueeze(2)).squeeze(2).unflatten(1, local.shape[2:])


class Additive(nn.Module):
    """`tanh`: c_i = <u, tanh(l_i + g)>, the additive attention that eq. 2 simplifies. Not in the paper.

    No bias, as in Bahdanau et al.: it would be the same for every i.
    """

    uses_global = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, 1, 1, bias=False)

    @in_full_precision
    def forward(self, local: Tensor, g: Tensor) -> Tensor:
        """Scores (N, h, w) of `local` (N, C, h, w) with `g` (N, C)."""
        return F.conv2d(tanh(local + g[:, :, None, None]), self.u.weight.to(local.dtype)).squeeze(1)


class LocalOnly(nn.Module):
    """`local`: c_i = <u, l_i>. What remains of `pc` under a softmax; needs no g. Not in the paper."""

    uses_global = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, 1, 1, bias=False)

    @in_full_precision
    def forward(self, local: Tensor, g: Tensor | None = None) -> Tensor:
        """Scores (N, h, w) of `local` (N, C, h, w); `g` is ignored."""
        return F.conv2d(local, self.u.weight.to(local.dtype)).squeeze(1)


COMPATIBILITIES: dict[str, type[Parametrised | DotProduct | Additive | LocalOnly]] = {
    "pc": Parametrised,
    "dp": DotProduct,
    "tanh": Additive,
    "local": LocalOnly,
}


def spatial_softmax(scores: Tensor) -> Tensor:
    """Eq. 1: a_i = exp(c_i) / sum_j exp(c_j), over all positions of each image's map (N, h, w).

    Scores of less than float32 precision give weights in float32, so that they still sum to 1.
    """
    return widened(scores).flatten(1).softmax(dim=1).view_as(scores)


def spatial_sigmoid(scores: Tensor) -> Tensor:
    """a_i = s(c_i) / sum_j s(c_j) with the logistic s, over all positions of each image's map. Not in the paper."""
    # In log space, where a map whose scores are all very negative does not become 0 / 0.
    return spatial_softmax(F.logsigmoid(widened(scores)))


NORMALISATIONS = {"softmax": spatial_softmax, "sigmoid": spatial_sigmoid}


class AttentionUnit(nn.Module):
    """Attention over the map of one layer: (l, g) -> (g_a, a).

    Where l has C and g has D channels and C != D, `project` says which of them is mapped to the other's dimension:
    `global` (section 4): g, by BatchNorm, ReLU, Dropout 0.5, Linear D -> C;
    `local` (section 3.1): l, by a 1x1 convolution C -> D; then the projected vectors are also those averaged.
    `bias` says whether that linear map and the scores of `pc` have a bias.

    Attributes:
        channels: dimension of g_a.
        uses_global: whether the compatibility looks at g.
    """

    def __init__(
        self,
        channels: int,
        global_channels: int,
        compatibility: str,
        normalisation: str,
        project: str,
        bias: bool = True,
    ) -> None:
        super().__init__()
        kind = COMPATIBILITIES[compatibility]
        self.uses_global = kind.uses_global
        self.project_local: nn.Module = nn.Identity()
        self.project_global: nn.Module = nn.Identity()
        self.channels = channels
        if channels != global_channels and project == "local":
            self.project_local = nn.Conv2d(channels, global_channels, 1, bias=bias)
            self.channels = global_channels
        elif channels != global_channels and self.uses_global:
            self.project_global = nn.Sequential(
                *normalised_vector(global_channels, dropout=0.5), nn.Linear(global_channels, channels, bias=bias)
            )
        self.compatibility = (
            Parametrised(self.channels, bias, shift_matters=normalisation != "softmax")
            if kind is Parametrised
            else kind(self.channels)
        )
        self.normalise = NORMALISATIONS[normalisation]

    def forward(self, local: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend to `local` (N, C, h, w) under `g` (N, D), or None where g is not used.

        Returns:
            g_a = sum_i a_i l_i (N, C) and a (N, h, w), non-negative, summing to 1 over each map.
        """
        local, weights = self.weigh(local, g)
        return attended_vector(local, weights), weights

    def weigh(self, local: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vectors l that are averaged, as a map (N, C, h, w), and their weights a (N, h, w)."""
        local = self.project_local(local)
        scores = self.compatibility(local, None if g is None else self.project_global(g))
        return local, self.normalise(scores)

    def log_weights(self, local: Tensor, g: Tensor | None) -> Tensor:
        """Logarithms (N, h, w) of the weights a, scored in float64: none underflows, and no two become equal."""
        g = None if g is None else self.project_global(g).double()
        scores = self.compatibility(self.project_local(local).double(), g)
        if self.normalise is spatial_sigmoid:
            scores = F.logsigmoid(scores)
        return scores.flatten(1).log_softmax(dim=1).view_as(scores)
