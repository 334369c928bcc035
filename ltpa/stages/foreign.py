"""Protocols on networks that are not of this package: `ltpa.evaluate`, and `ltpa evaluate --model MODULE:FACTORY`.

What runs code is a name that the user types, never a file of a network.
"""

import copy
import dataclasses
import importlib
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError, DataError, LtpaError, NotFiniteError
from ltpa.core.hashing import digest
from ltpa.core.records import Metric
from ltpa.core.registry import SUFFIX, member, trust
from ltpa.core.schema import read_plain
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.masks import OBJECT, VOID
from ltpa.data.normalise import build_normaliser
from ltpa.models.base import AttentionClassifier
from ltpa.models.foreign import Foreign, MapMaker, as_module
from ltpa.models.twostream.vision import torchvision_models
from ltpa.protocols.base import Context, Protocol, Scene
from ltpa.protocols.registry import built_in, find
from ltpa.stages.evaluate import Subject, known, refusal

IMAGENET = "imagenet"
PREPROCESSING = (IMAGENET, "none")  # schemes that need no training images
_ON_TORCHVISION = ("torchvision", "timm")  # which beside a CPU build of torch need help to load
_PLACE = re.compile(r"[\w./\\-]+:[A-Za-z_][\w.]*")


@dataclasses.dataclass(frozen=True)
class ForeignChoices:
    """How a network that is not of this package is run.

    Attributes:
        size: side of its images in pixels.
        preprocessing: `imagenet` (0-1, then ImageNet's mean and deviation), `none` (0-1), or MODULE:NAME of a function
            or module that maps raw RGB, floats 0-255, to the network's input.
        maps: MODULE:NAME of a function (`ltpa.models.foreign.MapMaker`); empty for Grad-CAM alone.
        classes: a file with the class of each logit on a line; None where the folders, in alphabetical order,
            are the classes.
    """

    size: int = 224
    preprocessing: str = IMAGENET
    maps: str = ""
    classes: Path | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a protocol found.

    Attributes:
        metrics: names, values, numbers of images and conditions; those that need labels are left out without labels.
        extra: further facts, as in a record.
        inapplicable: why the protocol was not run; empty where it was.
    """

    metrics: Sequence[Metric] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inapplicable: str = ""

    def value(self, name: str, condition: str = "") -> float:
        """The value of one metric.

        Raises:
            KeyError: there is none of that name and condition.
        """
        for metric in self.metrics:
            if (metric.name, metric.condition) == (name, condition):
                return metric.value
        raise KeyError((name, condition))


def evaluate(
    network: nn.Module,
    images: np.ndarray,
    labels: "np.ndarray | Sequence[int] | None" = None,
    protocols: Sequence[str] | None = None,
    maps: MapMaker | None = None,
    preprocessing: "str | nn.Module | Callable[..., Any] | None" = None,
    masks: np.ndarray | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Measured]:
    """Run protocols on any image classifier.

    Args:
        network: returns logits (N, C), or a sequence that begins with them. A copy of it is measured.
        images: (N, S, S, 3) uint8 RGB, of the size that the network takes.
        labels: (N,) true classes, indices into the logits; without them accuracies are left out.
        protocols: their names; None for all that apply.
        maps: a function of the network, its inputs (N, 3, S, S) and the classes (N,) that it predicts, which returns a
            map (N, h, w) of each image: a library's attribution, or the network's own attention.
        preprocessing: maps raw RGB, float tensors (N, 3, S, S) of 0-255, to the network's input, differentiably; or
            `none`, to 0-1, or `imagenet`, which then takes ImageNet's mean and divides by its deviation. By default a
            network of this package keeps its own, and any other gets `imagenet`.
        masks: (N, M, M) uint8, 1 on the object, 0 beside it, 255 where unknown.
        settings: by protocol, what differs from its defaults.

    Returns:
        By protocol what it found. With `protocols` None, those that do not apply are in it with the reason.

    Raises:
        ConfigError: no such protocol or setting.
        DataError: images, labels or masks do not fit, or a protocol that is named needs what they lack.
        ModelError: the network does not run on such images, returns no logits, or lacks what a named protocol looks at.
        NotFiniteError: logits or maps are not finite.
    """
    if not isinstance(network, nn.Module):
        raise ConfigError(f"network is a {type(network).__name__}; give a torch.nn.Module")
    names = list(built_in() if protocols is None else protocols)
    for name in [*names, *(settings or {})]:
        if name not in built_in():
            raise ConfigError(unknown_name("protocol", name, list(built_in())))
    scene = ForeignScene({n: read_plain(find(n).Settings, (settings or {}).get(n, {}), n) for n in built_in()})
    dataset = _dataset(images, labels, masks)
    if isinstance(network, AttentionClassifier):
        model = copy.deepcopy(network).eval()
        if preprocessing is not None:
            model.preprocessing = _preprocessing(preprocessing, model.image_size)
    else:
        size = dataset.image_size
        model = Foreign(copy.deepcopy(network), size, _preprocessing(preprocessing or IMAGENET, size), maps)
    if len(dataset.classes) > model.num_classes:
        raise DataError(
            f"labels: there is class {len(dataset.classes) - 1}; the network has {model.num_classes}, from 0"
        )
    found = {}
    for name in names:
        try:
            found[name] = _measured(find(name), scene, model, dataset, labels is not None)
        except NotFiniteError as error:
            raise NotFiniteError(f"{name}: {error}") from error
        except LtpaError as error:
            if protocols is not None:
                raise
            found[name] = Measured(inapplicable=str(error))
    return found


def _measured(
    protocol: Protocol, scene: "ForeignScene", model: AttentionClassifier, dataset: PreparedDataset, labelled: bool
) -> Measured:
    settings, test, variant = scene.settings(protocol.name), dataset.split("test"), model.metadata.get("variant", "")
    if reason := refusal(protocol, scene, model, variant, labelled, test.masks is not None):
        raise ConfigError(reason)
    inputs = protocol.folder_inputs(scene, variant)
    if protocol.compares_classes(settings) and (not labelled or len(np.unique(test.labels)) < 2):
        raise DataError(f"{protocol.name}: needs images of at least two classes; give labels")
    with tempfile.TemporaryDirectory(prefix="ltpa-evaluate-") as scratch:
        target = protocol.folder_target(dataset.name, list(range(model.num_classes)) if labelled else None)
        found = protocol.measure(model, [dataset], settings, Context([target], inputs, 0, Path(scratch)))
    return Measured(known(protocol, found.metrics, labelled), found.extra)


def is_place(text: str) -> bool:
    """Whether a network's name is MODULE:FACTORY or FILE.py:FACTORY, and not a file's."""
    return _PLACE.fullmatch(text) is not None and not Path(text).exists()


def foreign_subject(place: str, chosen: ForeignChoices) -> Subject:
    """The network that the user's function at `place` returns.

    Raises:
        ConfigError: there is none.
        DataError: the file of classes cannot be read, or does not name every class once.
        ModelError: it does not run on images of this size, or returns no logits.
    """
    model = foreign_network(place, chosen)
    layers = getattr(model, "map_layers", [])
    facts = {**dataclasses.asdict(chosen), "classes": str(chosen.classes or ""), "map_layers": layers}
    classes = None if chosen.classes is None else _class_names(chosen.classes, model.num_classes)
    return Subject(model, place, model.architecture["family"], classes, facts)


def _class_names(path: Path, count: int) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--classes {path}: cannot be read ({error}); give a text file") from error
    if len(set(names)) != len(names) or len(names) != count:
        raise DataError(
            f"--classes {path}: {len(names)} lines, {len(set(names))} of them different, and the network has {count} "
            "classes; give the name of each class on a line, in the order of the logits"
        )
    return names


def foreign_network(place: str, chosen: ForeignChoices) -> AttentionClassifier:
    """The network that the function at `place` returns. This runs the user's code.

    Raises:
        ConfigError: something is not there, fails, or is of another type.
        ModelError: the network does not run on images of this size, or returns no logits.
    """
    network = _called(place, "--model")
    if not isinstance(network, nn.Module):
        raise ConfigError(f"--model {place}: returns a {type(network).__name__}; it must return a torch.nn.Module")
    if isinstance(network, AttentionClassifier):
        raise ConfigError(f"--model {place}: returns a network of this package; save it, and name its file")
    named = is_place(chosen.preprocessing)
    preprocessing = _at(chosen.preprocessing, "--preprocessing") if named else chosen.preprocessing
    maps = _at(chosen.maps, "--maps") if chosen.maps else None
    return Foreign(network, chosen.size, _preprocessing(preprocessing, chosen.size), maps, place)


def _preprocessing(chosen: Any, size: int) -> nn.Module:
    if not isinstance(chosen, str):
        return as_module(chosen)
    if chosen not in PREPROCESSING:
        raise ConfigError(f"preprocessing {chosen}: unknown; use {', '.join(PREPROCESSING)} or a function")
    return build_normaliser(chosen, size)


def _called(place: str, option: str) -> Any:
    factory = _at(place, option)
    try:
        return factory()
    except Exception as error:  # a user's function may raise anything
        raise ConfigError(f"{option} {place}: the call without arguments fails ({_text(error)}); correct it") from error


def _at(place: str, option: str) -> Any:
    """The callable at MODULE:NAME; modules are looked for in the working directory, too."""
    module, _, name = place.partition(":")
    if not name:
        raise ConfigError(f"{option} {place}: not MODULE:NAME")
    try:
        if module.endswith(SUFFIX):
            trust([module])
            found = member(place)
        else:
            if str(Path.cwd()) not in sys.path:
                sys.path.append(str(Path.cwd()))
            if module.partition(".")[0] in _ON_TORCHVISION:
                torchvision_models()
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
    except LtpaError:
        raise
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{option} {place}: cannot be imported ({_text(error)}); correct the name") from error
    if not callable(found):
        raise ConfigError(f"{option} {place}: is a {type(found).__name__}; name a function")
    return found


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _dataset(images: np.ndarray, labels: Any, masks: np.ndarray | None) -> PreparedDataset:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype} {images.shape}; give (N, S, S, 3) uint8")
    count = len(images)
    if not count:
        raise DataError("images: none; give at least one")
    truth = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    if truth.shape != (count,) or truth.dtype.kind not in "iu" or truth.min() < 0:
        raise DataError(f"labels are {truth.dtype} {truth.shape}; give {count} whole numbers from 0 on")
    if masks is not None:
        masks = np.asarray(masks)
        if masks.ndim != 3 or len(masks) != count or masks.shape[1] != masks.shape[2] or masks.dtype != np.uint8:
            raise DataError(f"masks are {masks.dtype} {masks.shape}; give ({count}, M, M) uint8")
        if not np.isin(masks, (0, OBJECT, VOID)).all():
            raise DataError(f"masks hold other values than 0, {OBJECT} and {VOID}")
    split = Split(images, truth.astype(np.int64), np.array([str(row) for row in range(count)]), masks)
    classes = [str(label) for label in range(int(truth.max()) + 1)]
    return PreparedDataset("images", classes, {"test": split}, digest([count]), {})


class ForeignScene(Scene):
    """What protocols are told of a configuration where there is no variant of this package: settings alone."""

    trained_variants: Sequence[str] = ()
    known_variants: Sequence[str] = ()
    known_roles: Sequence[str] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def settings(self, protocol: str) -> Any:
        """The settings of a protocol."""
        return self._settings[protocol]

    def using(self, use: str) -> list[str]:
        """No datasets."""
        return []

    def declared(self, dataset: str) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def role(self, dataset: str) -> str:
        """Its own name."""
        return dataset

    def locates(self, dataset: str) -> bool:
        """Nothing is declared that says where objects are."""
        return False

    def knows(self, dataset: str, what: str) -> bool:
        """Nothing is declared of objects and parts."""
        return False

    def saliency(self, variant: str) -> dict[str, Any] | None:
        """No map is declared."""
        return None

    def network(self, variant: str) -> Any:
        """There are no options."""
        return None

    def is_queried(self, variant: str) -> bool:
        """No global vector is known."""
        return False

    def training(self, dataset: str, variant: str) -> Any:
        """It was not trained here."""
        return None
