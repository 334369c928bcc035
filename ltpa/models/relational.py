"""Blocks that relate the positions of a map to each other: non-local, SAGAN, local self-attention; and a control.

Each adds something to its input, nothing at first: a fresh block is the identity to the bit. Then only its last factor
(`gamma`, the last norm's weight, `W_o`) has a gradient; the rest of the block begins to learn once that has moved.
Notation: a map x (N, C, h, w) has positions i, as queries, and keys j, those of the pooled map where `pool` is 2.
"""

import abc
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ltpa.models.blocks import in_full_precision


class Block(nn.Module, abc.ABC):
    """Maps (N, C, h, w) to (N, C, h, w)."""

    @abc.abstractmethod
    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global random stream."""

    def weights(self, x: Tensor) -> Tensor | None:
        """What each key gives to each query, (N, h w, keys); None where nothing is attended to."""
        return None

    def received(self, x: Tensor) -> Tensor | None:
        """The attention that each position receives, the mean over queries: (N, h, w), at least 0, summing to 1.

        Weights of functions without a softmax may be negative; their negative part is left out. Where nothing is left
        the map is even.
        """
        weights = self.weights(x)
        if weights is None:
            return None
        height, width = x.shape[2:]
        keys = weights.mean(dim=1).clamp(min=0)
        if keys.shape[1] != height * width:  # pooled keys stand for their windows; an odd last row for none
            rows, columns = height // 2, width // 2
            grid = F.interpolate(keys.view(-1, 1, rows, columns), scale_factor=2.0)
            keys = F.pad(grid, (0, width - 2 * columns, 0, height - 2 * rows)).flatten(1)
        total = keys.sum(dim=1, keepdim=True)
        even = torch.full_like(keys, 1 / keys.shape[1])
        return torch.where(total > 0, keys / total.clamp(min=1e-30), even).view(-1, height, width)


def _pooled(x: Tensor, pool: int) -> Tensor:
    return F.max_pool2d(x, pool) if pool > 1 else x


def _positions(x: Tensor) -> Tensor:
    """(N, C, h, w) as (N, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def _mapped(y: Tensor, x: Tensor) -> Tensor:
    """(N, h w, C) as a map of the size of `x`."""
    return y.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


class NonLocal(Block):
    """Wang et al. (CVPR 2018): x_i + BN(W sum_j f(x_i, x_j) g(x_j) / C(x)), half as wide inside.

    f / C(x) is, over M keys, by `function`: `gaussian` softmax_j(x_i . x_j); `embedded` softmax_j(theta_i . phi_j);
    `dot` theta_i . phi_j / M; `concatenation` relu(w . [theta_i, phi_j]) / M. `scale: sqrt` divides the scores of
    `embedded` by the root of the inner width, as the released code does and the paper does not. Pooling comes before
    the 1x1 convolutions, as in that code.
    """

    def __init__(self, channels: int, function: str, pool: int, scale: str) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.function, self.pool = function, pool
        self.scale = inner**-0.5 if scale == "sqrt" else 1.0
        self.g = nn.Conv2d(channels, inner, 1)
        if function != "gaussian":
            self.theta, self.phi = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        if function == "concatenation":
            self.compare = nn.Conv2d(2 * inner, 1, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def reset_parameters(self) -> None:
        """Convolutions N(0, 0.01) with bias 0, the norm's weight 0 (section 4.1 and the released code)."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def weights(self, x: Tensor) -> Tensor:
        """f / C(x), (N, h w, M)."""
        keys = _pooled(x, self.pool)
        if self.function == "gaussian":
            return _softmax_scores(_positions(x), _positions(keys), 1.0)
        theta, phi = _positions(self.theta(x)), _positions(self.phi(keys))
        if self.function == "embedded":
            return _softmax_scores(theta, phi, self.scale)
        if self.function == "dot":
            return theta @ phi.transpose(1, 2) / phi.shape[1]
        first, second = self.compare.weight.flatten().chunk(2)
        return F.relu((theta @ first)[:, :, None] + (phi @ second)[:, None, :]) / phi.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """x with what its positions tell each other."""
        y = self.weights(x) @ _positions(self.g(_pooled(x, self.pool)))
        return x + self.norm(self.out(_mapped(y, x)))


class SaganBlock(Block):
    """Zhang et al. (ICML 2019) as in the authors' code: x + gamma v(sum_j softmax_j(f_i . g_j) h_j), gamma a scalar.

    f and g have C / 8 channels, h C / 2; no biases; spectral norm on all four; keys and values pooled. The paper's text
    has h of C / 8 and no pooling. Where the two differ BigGAN's author calls the code correct.
    """

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.f, self.g, self.h, self.v = (
            cast(nn.Conv2d, spectral_norm(nn.Conv2d(*sizes, 1, bias=False)))
            for sizes in ((channels, narrow), (channels, narrow), (channels, half), (half, channels))
        )
        self.gamma = nn.Parameter(torch.zeros(()))

    def reset_parameters(self) -> None:
        """Xavier's rule, gamma 0; singular vectors are drawn and settled anew."""
        nn.init.zeros_(self.gamma)
        for part in (self.f, self.g, self.h, self.v):
            held: Any = part.parametrizations
            nn.init.xavier_uniform_(held.weight.original)
            nn.init.normal_(held.weight[0]._u)
            held.weight[0]._power_method(held.weight.original.detach().flatten(1), 15)

    def weights(self, x: Tensor) -> Tensor:
        """softmax_j(f_i . g_j), (N, h w, M)."""
        return _softmax_scores(_positions(self.f(x)), _positions(_pooled(self.g(x), self.pool)), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """x with what its positions tell each other."""
        y = self.weights(x) @ _positions(_pooled(self.h(x), self.pool))
        return x + self.gamma * self.v(_mapped(y, x))


class LocalAttention(Block):
    """The Image Transformer's operator (Parmar et al., ICML 2018) without its mask: attention in a window, by heads.

    x_i + W_o sum_j softmax_j(q_i . k_j / sqrt d + r_{j-i}) v_j over the `window` x `window` neighbours j of i that lie
    in the image; r is learned, one number for each offset and head. Written dense, with a mask: on maps of up to about
    20 x 20 that is several times faster than gathering windows.
    """

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.offsets = nn.Parameter(torch.zeros(heads, window * window))

    def reset_parameters(self) -> None:
        """Xavier's rule with biases 0; offsets and W_o 0."""
        for part in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        for value in (self.out.weight, self.out.bias, self.offsets):
            nn.init.zeros_(value)  # type: ignore[arg-type]

    def weights(self, x: Tensor) -> Tensor:
        """The mean over heads, (N, h w, h w)."""
        return self._by_head(x).mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x with what the neighbours of each position tell it."""
        y = self._by_head(x) @ self._split(self.value(x))
        return x + self.out(_mapped(y.transpose(1, 2).flatten(2), x))

    def _split(self, x: Tensor) -> Tensor:
        """(N, C, h, w) as (N, heads, h w, C / heads)."""
        return _positions(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _by_head(self, x: Tensor) -> Tensor:
        """softmax_j, (N, heads, h w, h w)."""
        query, key = self._split(self.query(x)), self._split(self.key(x))
        rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
        reach = self.window // 2
        down = (rows[None, :] - rows[:, None] + reach)[:, None, :, None]  # of key to query, from 0 within the window
        right = (columns[None, :] - columns[:, None] + reach)[None, :, None, :]
        inside = (down >= 0) & (down < self.window) & (right >= 0) & (right < self.window)
        number = (down.clamp(0, self.window - 1) * self.window + right.clamp(0, self.window - 1)).flatten(2)
        offsets = self.offsets[:, number.flatten(0, 1)].masked_fill(~inside.flatten(2).flatten(0, 1), -math.inf)
        return _softmax_scores(query, key, query.shape[-1] ** -0.5, offsets)


class ResidualConv(Block):
    """The control: x + BN(1x1(relu(3x3(x)))), with about as many parameters as an embedded non-local block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        wanted = 3 * (channels + 1) * half + (half + 1) * channels  # both blocks have the norm's 2 C besides
        inner = max(1, round((wanted - channels) / (10 * channels + 1)))
        self.conv, self.out = nn.Conv2d(channels, inner, 3, padding=1), nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def reset_parameters(self) -> None:
        """As in `NonLocal`, but for He's rule inside, as no attention waits for small scores."""
        for part in (self.conv, self.out):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x with what a convolution adds."""
        return x + self.norm(self.out(F.relu(self.conv(x))))


@in_full_precision
def _softmax_scores(query: Tensor, key: Tensor, scale: float, added: Tensor | None = None) -> Tensor:
    """softmax_j(scale q_i . k_j + added_ij) of (..., queries, d) and (..., keys, d): (..., queries, keys)."""
    scores = query @ key.transpose(-1, -2) * scale
    return (scores if added is None else scores + added).softmax(dim=-1)
