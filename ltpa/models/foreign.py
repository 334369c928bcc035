"""Networks that are not of this package, such as torchvision's or a user's own, in the form that protocols work with.

What a protocol asks of a network besides its logits is found by one pass of probe images: the input of its last linear
layer, and the layers whose outputs are maps.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.core.errors import ModelError, NotFiniteError
from ltpa.models.base import AttentionClassifier

# A network, its inputs (N, 3, S, S) and the classes (N,) that it predicts for them -> maps (N, h, w) or (N, 1, h, w).
MapMaker = Callable[[nn.Module, Tensor, Tensor], Any]


class Foreign(AttentionClassifier):
    """An `nn.Module` with what protocols need; it is put into evaluation mode, and all its parameters get gradients.

    The module takes what `preprocessing` makes of raw RGB (N, 3, S, S), floats 0-255, and returns logits (N, C) or a
    sequence that begins with them.

    Attributes:
        network: the module.
        map_layers: names of up to two layers whose outputs are maps, from input to output: those that end last of the
            smallest maps of at least 2 x 2 cells, and of the next larger ones. Empty where the smallest maps belong to
            the first half of the layers, as those of patches in a transformer do.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        preprocessing: nn.Module | Callable[[Tensor], Tensor] | None = None,
        maps: MapMaker | None = None,
        name: str = "",
    ) -> None:
        """`maps` makes a map of each image, such as a library's attribution; `name` is for messages.

        Raises:
            ModelError: the module has no parameters, does not run on such images, or returns no logits.
            NotFiniteError: the logits of the probe images are not finite.
        """
        super().__init__({"family": type(network).__name__}, 0, image_size)
        self.network = network.requires_grad_(True)
        self.maps = maps
        self.name = name or type(network).__name__
        self.metadata = {"variant": self.name}
        if preprocessing is not None:
            self.preprocessing = as_module(preprocessing)
        self.eval()
        passed = self._probe()
        self.map_layers = _map_layers(passed)
        self._classifier = _last_linear(passed, self.num_classes)

    @property
    def shows_maps(self) -> bool:
        """Whether there is a map of the whole network: of `maps`, or by Grad-CAM of its last layer with maps."""
        return self.maps is not None or bool(self.map_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return _logits(self.network(x))

    def features(self, x: Tensor) -> Tensor:
        """Input (N, d) of the last linear layer.

        Raises:
            ModelError: no linear layer makes the logits.
        """
        if self._classifier is None:
            raise ModelError(f"{self.name}: no linear layer makes its logits, so it has no features for a classifier")
        kept: list[Tensor] = []
        hook = self.network.get_submodule(self._classifier).register_forward_hook(
            lambda _, inputs, __: kept.append(inputs[0])
        )
        with _removed([hook]):
            self.network(x)
        return kept[-1]

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs (N, C, h, w) of `map_layers`."""
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda _, __, output: kept.__setitem__(name, output)

        with _removed([layer.register_forward_hook(keep(name)) for name, layer in self.named_map_layers()]):
            self.network(x)
        return {name: kept[name] for name in self.map_layers}

    def named_map_layers(self) -> list[tuple[str, nn.Module]]:
        """The layers of `map_layers` with their names."""
        return [(name, self.network.get_submodule(name)) for name in self.map_layers]

    def flow(self) -> list[tuple[str, nn.Module]]:
        """Its modules that have parameters of their own as `trunk`, the last linear layer as `head`, as declared."""
        modules = [(name, each) for name, each in self.network.named_modules() if has_own(each)]
        body = [("trunk", module) for name, module in modules if name != self._classifier]
        return body + [("head", module) for name, module in modules if name == self._classifier]

    def maps_of(self, pixels: Tensor) -> np.ndarray:
        """What `maps` makes of raw pixels (N, 3, S, S), as (N, h, w) float32.

        Raises:
            ModelError: it fails, or gives something of another shape.
            NotFiniteError: a map is not finite.
        """
        if self.maps is None:
            raise ModelError(f"{self.name}: no function that makes maps is given")
        with torch.inference_mode(False), torch.enable_grad():
            inputs = self.preprocessing(pixels.clone()).detach()
            classes = self(inputs).argmax(dim=1)
            try:
                found = self.maps(self.network, inputs.requires_grad_(True), classes)
            except Exception as error:
                raise ModelError(f"{self.name}: the function that makes maps fails ({_text(error)})") from error
        self.network.eval()
        maps = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
        if maps.ndim == 4 and maps.shape[1] == 1:
            maps = maps[:, 0]
        if maps.ndim != 3 or len(maps) != len(pixels) or maps.dtype.kind not in "fiub" or 0 in maps.shape:
            raise ModelError(
                f"{self.name}: the maps of {len(pixels)} images are {maps.dtype} {maps.shape}; give numbers (N, h, w)"
            )
        if not np.isfinite(maps).all():
            raise NotFiniteError("its maps of these images are not finite; correct the function that makes them")
        return maps.astype(np.float32)

    def _probe(self) -> "list[_Passed]":
        """What each layer gives for two probe images; sets `num_classes`."""
        device = next(self.network.parameters(), torch.empty(0)).device
        if next(self.network.parameters(), None) is None:
            raise ModelError(f"{self.name}: has no parameters; give the network that classifies")
        noise = torch.randint(0, 256, (2, 3, self.image_size, self.image_size), generator=torch.Generator()).float()
        passed: list[_Passed] = []

        def note(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: passed.append(_Passed(name, module, output, inputs))

        hooks = [part.register_forward_hook(note(name)) for name, part in self.network.named_modules() if name]
        with _removed(hooks), torch.no_grad():
            try:
                output = self.network(self.preprocessing(noise.to(device)))
            except Exception as error:
                raise ModelError(
                    f"{self.name}: does not run on images (N, 3, {self.image_size}, {self.image_size}) "
                    f"({_text(error)}); give the size and the preprocessing that it was trained with"
                ) from error
        logits = _logits(output)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(noise) or logits.shape[1] < 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name}: returns {shape} for 2 images; it must return logits (2, classes) of at least two "
                "classes, or a sequence that begins with them"
            )
        if not bool(logits.isfinite().all()):
            raise NotFiniteError(f"{self.name}: its logits of two probe images are not finite; check its weights")
        self.num_classes = logits.shape[1]
        return passed


def redraw(module: nn.Module) -> None:
    """Draw the parameters of `module`, not those of its parts, anew from torch's global random stream.

    It does so itself, as when it was made; the parameters of one that has no `reset_parameters` are permuted.
    """
    reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
    if has_own(module) and callable(reset):
        reset()
        return
    with torch.no_grad():
        for values in module.parameters(recurse=False):
            values.copy_(values.flatten()[torch.randperm(values.numel())].view_as(values))


def has_own(module: nn.Module) -> bool:
    """Whether a module has parameters that belong to none of its parts."""
    return next(module.parameters(recurse=False), None) is not None


def as_module(function: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """A function as a module; a module as it is."""
    return function if isinstance(function, nn.Module) else _Function(function)


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Passed(NamedTuple):
    """A layer that the probe images have passed, in the order in which layers end."""

    name: str
    module: nn.Module
    output: Any
    inputs: tuple[Any, ...]


def _logits(output: Any) -> Any:
    return output[0] if isinstance(output, Sequence) and len(output) else output


def _map_layers(passed: Sequence[_Passed]) -> list[str]:
    leaves = sum(_is_leaf(each) for each in passed)
    sides: dict[int, str] = {}  # the last layer to end, by the side of its maps
    late: set[int] = set()  # sides that occur in the second half
    before = 0
    for each in passed:
        before += _is_leaf(each)
        output = each.output
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] > 1:
            _, _, height, width = output.shape
            if height == width > 1:
                sides[height] = each.name
                late |= {height} if 2 * before >= leaves else set()
    smallest = sorted(sides)[:2]
    if not smallest or smallest[0] not in late:
        return []
    return [sides[side] for side in reversed(smallest)]


def _last_linear(passed: Sequence[_Passed], classes: int) -> str | None:
    for each in reversed(passed):
        if isinstance(each.module, nn.Linear) and each.module.out_features == classes and each.inputs[0].ndim == 2:
            return each.name
    return None


def _is_leaf(passed: _Passed) -> bool:
    return next(passed.module.children(), None) is None


@contextlib.contextmanager
def _removed(hooks: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
