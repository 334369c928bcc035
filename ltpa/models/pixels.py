"""Networks over pixels: log p of every level of each pixel, given the pixels before it in reading order.

Pixels are levels (N, H, W) int64, 0 to K - 1, of one colour. One pass gives all conditionals. H and W are at most the
network's image size. Equations and where public code goes wrong: docs/survey-pixels.md.
"""

from abc import abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier
from ltpa.models.families.pixels import Options


class PixelNetwork(AttentionClassifier):
    """What the networks share. Attributes: `options`, what it is; `num_classes`, the levels K."""

    classifies: ClassVar[bool] = False
    head: nn.Conv2d  # from the states of a pixel to the logits of its levels

    def __init__(self, options: Options, levels: int, image_size: int, depth: int) -> None:
        super().__init__(options.plain(), levels, image_size)
        self.options, self.feature_dim = options, depth

    @abstractmethod
    def states(self, pixels: Tensor) -> Tensor:
        """Maps (N, C, H, W) float: what the network knows of each pixel from those before it."""

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, K, H, W) of the levels of every pixel of `pixels` (N, H, W), each after the pixels before it.

        Raises:
            ModelError: a level is outside 0 to K - 1, or the image is larger than the network's.
        """
        self._check(pixels)
        return cast(Tensor, self.head(self.states(pixels)))

    def nats(self, pixels: Tensor) -> Tensor:
        """-log p (N, H, W) of the pixels, each after those before it."""
        return F.cross_entropy(self.logits(pixels), pixels, reduction="none")

    def seen(self, pixels: Tensor) -> Tensor:
        """The levels one-hot (N, K, H, W). Beyond the border there is none, so zero padding marks the border."""
        return F.one_hot(pixels, self.num_classes).permute(0, 3, 1, 2).to(self.head.weight.dtype)

    def pixels_of(self, x: Tensor) -> Tensor:
        """Levels (N, S, S) of raw RGB images (N, 3, S, S), floats 0-255, as `ltpa.data.levels` draws them."""
        self.check_input(x)
        return (x[:, 0] * ((self.num_classes - 1) / 255)).round().long().clamp(0, self.num_classes - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, S, S) of the levels of raw RGB images."""
        return self.logits(self.pixels_of(x))

    def features(self, x: Tensor) -> Tensor:
        """What the network knows of the last pixel (N, C)."""
        return self.states(self.pixels_of(x))[:, :, -1, -1]

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """The maps before the last layer."""
        return {"last": self.states(self.pixels_of(x))}

    def example(self) -> tuple[Tensor, ...]:
        """One black image."""
        return (torch.zeros(1, 3, self.image_size, self.image_size, device=self.head.weight.device),)

    def weights_used(self) -> int:
        """Number of parameters without those that a mask hides."""
        hidden = sum(int(m.hides) for m in self.modules() if isinstance(m, MaskedConv))
        return sum(parameter.numel() for parameter in self.parameters()) - hidden

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global random stream, as torch does for each kind of layer."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                cast(nn.Linear, module).reset_parameters()

    def _check(self, pixels: Tensor) -> None:
        if pixels.ndim != 3 or max(pixels.shape[1:]) > self.image_size:
            raise ModelError(
                f"pixels of shape {tuple(pixels.shape)} do not fit: this network takes (N, H, W) with sides up to "
                f"{self.image_size}; build it with a larger image_size"
            )
        if pixels.device.type != "meta" and pixels.numel() and not 0 <= pixels.min() <= pixels.max() < self.num_classes:
            n, y, x = ((pixels < 0) | (pixels >= self.num_classes)).nonzero()[0].tolist()
            raise ModelError(
                f"image {n}, row {y}, column {x}: level {int(pixels[n, y, x])}, and the network knows 0 to "
                f"{self.num_classes - 1}; use images of so many levels"
            )


class MaskedConv(nn.Conv2d):
    """A convolution (odd k x k, same size) that sees the rows above and the left part of the row.

    Attributes:
        centre: whether it sees the pixel itself, too (type B); the first layer does not (type A).
        hides: number of its weights that never count.
    """

    def __init__(self, before: int, after: int, kernel: int, centre: bool) -> None:
        super().__init__(before, after, kernel, padding=kernel // 2)
        middle = kernel // 2
        self.centre = centre
        self.hides = before * after * (kernel**2 - kernel * middle - middle - centre)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution under the mask."""
        middle = self.kernel_size[0] // 2
        mask = torch.zeros_like(self.weight[0, 0])  # no buffer: a saved one could be another
        mask[:middle] = 1
        mask[middle, : middle + self.centre] = 1
        return F.conv2d(x, self.weight * mask, self.bias, padding=self.padding)


class PixelCnn(PixelNetwork):
    """Masked convolutions with residual blocks (ICML 2016, section 3 and figure 5). It has a blind spot."""

    def __init__(self, options: Options, levels: int, image_size: int) -> None:
        wide = options.channels
        super().__init__(options, levels, image_size, 2 * wide)
        self.first = MaskedConv(levels, 2 * wide, options.first_kernel, centre=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(2 * wide, wide, 1),
                nn.ReLU(),
                MaskedConv(wide, wide, options.kernel, centre=True),
                nn.ReLU(),
                nn.Conv2d(wide, 2 * wide, 1),
            )
            for _ in range(options.depth)
        )
        self.head = nn.Conv2d(2 * wide, levels, 1)

    def states(self, pixels: Tensor) -> Tensor:
        """As in `PixelNetwork`."""
        x = self.first(self.seen(pixels))
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x)


class GatedLayer(nn.Module):
    """One layer of a gated PixelCNN (NeurIPS 2016, figure 2): a stack of the rows above, and one of the row."""

    def __init__(self, before: int, wide: int, kernel: int, first: bool) -> None:
        super().__init__()
        self.reach, self.is_first = kernel // 2, first
        self.vertical = nn.Conv2d(before, 2 * wide, (self.reach + 1, kernel))
        self.link = nn.Conv2d(2 * wide, 2 * wide, 1)
        self.horizontal = nn.Conv2d(before, 2 * wide, (1, self.reach + (not first)))
        self.out = nn.Conv2d(wide, wide, 1)

    def forward(self, above: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks (N, C, H, W). At row r `above` knows of rows up to r itself, so it joins the row one lower."""
        height, width, half = *row.shape[2:], self.reach
        seen = self.vertical(F.pad(above, (half, half, half, 0)))
        shifted = F.pad(seen, (0, 0, 1, 0))[:, :, :height]
        # The first layer has one column less, on the right: the pixel itself.
        along = self.horizontal(F.pad(row, (half, 0, 0, 0)))[..., :width]
        found = self.out(_gate(along + self.link(shifted)))
        return _gate(seen), found if self.is_first else found + row


def _gate(x: Tensor) -> Tensor:
    values, gates = x.chunk(2, 1)
    return values.tanh() * gates.sigmoid()


class GatedPixelCnn(PixelNetwork):
    """Two stacks and gates: no blind spot."""

    def __init__(self, options: Options, levels: int, image_size: int) -> None:
        wide = options.channels
        super().__init__(options, levels, image_size, wide)
        sizes = [(levels, options.first_kernel), *[(wide, options.kernel)] * (options.depth - 1)]
        self.layers = nn.ModuleList(
            GatedLayer(before, wide, kernel, first=index == 0) for index, (before, kernel) in enumerate(sizes)
        )
        self.head = nn.Conv2d(wide, levels, 1)

    def states(self, pixels: Tensor) -> Tensor:
        """As in `PixelNetwork`."""
        above = row = self.seen(pixels)
        for layer in self.layers:
            above, row = layer(above, row)
        return F.relu(row)


def window(length: int, block: int, memory: int | str, device: torch.device | None = None) -> Tensor:
    """Which keys (column) a query (row) sees, (length, length) bool.

    Those up to itself, of its own block of queries and of the `memory` positions before the block; `all` for no limit.
    """
    at = torch.arange(length, device=device)
    past = at[None] <= at[:, None]
    return past if isinstance(memory, str) else past & (at[None] >= (at // block * block)[:, None] - memory)


class AttentionLayer(nn.Module):
    """Self-attention under a mask, then a feed-forward part, each with residual and LayerNorm behind (section 3)."""

    def __init__(self, wide: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_three = nn.Linear(wide, 3 * wide, bias=False)
        self.join = nn.Linear(wide, wide, bias=False)
        self.forward_part = nn.Sequential(nn.Linear(wide, inner), nn.ReLU(), nn.Linear(inner, wide))
        self.norms = nn.ModuleList([nn.LayerNorm(wide), nn.LayerNorm(wide)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Vectors (N, P, d) to vectors of the same shape."""
        query, key, value = self.in_three(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norms[0](x + self.join(mixed.transpose(1, 2).flatten(2)))
        return cast(Tensor, self.norms[1](x + self.forward_part(x)))


class ImageTransformer(PixelNetwork):
    """Attention over the pixels before, in one dimension (Parmar et al. 2018), written dense under a mask."""

    def __init__(self, options: Options, levels: int, image_size: int) -> None:
        wide = options.channels
        super().__init__(options, levels, image_size, wide)
        self.embedding = nn.Embedding(levels + 1, wide)  # the last one stands before the first pixel
        self.rows, self.columns = (nn.Parameter(torch.empty(image_size, wide)) for _ in range(2))
        self.layers = nn.ModuleList(AttentionLayer(wide, options.heads, options.inner) for _ in range(options.depth))
        self.head = nn.Conv2d(wide, levels, 1)
        self._place()

    def reset_parameters(self) -> None:
        """As in `PixelNetwork`; positions are drawn large, else they are learned slowly."""
        super().reset_parameters()
        self._place()

    def _place(self) -> None:
        for part in (self.rows, self.columns):
            nn.init.normal_(part, std=self.options.position_sd)

    def states(self, pixels: Tensor) -> Tensor:
        """As in `PixelNetwork`."""
        height, width = pixels.shape[1:]
        shifted = F.pad(pixels.flatten(1)[:, :-1], (1, 0), value=self.num_classes)
        places = (self.rows[:height, None] + self.columns[None, :width]).flatten(0, 1)
        x = self.embedding(shifted) + places
        mask = window(height * width, self.options.block, self.options.memory, pixels.device)
        for layer in self.layers:
            x = layer(x, mask)
        return cast(Tensor, x.transpose(1, 2).unflatten(2, (height, width)))


_KINDS: dict[str, type[PixelCnn] | type[GatedPixelCnn] | type[ImageTransformer]] = {
    "pixelcnn": PixelCnn,
    "gated": GatedPixelCnn,
    "attention": ImageTransformer,
}


def build_pixels(options: Options, num_classes: int, image_size: int) -> PixelNetwork:
    """The network that `options` describe, over `num_classes` levels."""
    return _KINDS[options.kind](options, num_classes, image_size)
