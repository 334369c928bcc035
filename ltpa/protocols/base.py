"""What a protocol is: one way to measure trained networks, declared whole in one file.

A protocol is a class derived from `Protocol`, in a module of this package or in a file of a user's own. Configuration,
plan, rules, command line and tables read that class; nothing else repeats what it says. Importing its module must stay
cheap (no torch, no NumPy), so heavy imports belong inside `measure`.
"""

import abc
import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ltpa.core.checks import Check
from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.core.records import Metric, Record
from ltpa.core.schema import ListOf, PlainData, once_each

if TYPE_CHECKING:
    import numpy as np

    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier


# Upper bounds stand above any use, so that a slip of the keyboard is a line at once and no job that never ends.
ImageCount = Annotated[int, Field(ge=1, le=10**8)]  # no set that a network is tested on has more images
BatchSize = Annotated[int, Field(ge=1, le=10**5)]  # images per pass
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epsilons = Annotated[  # bounds of a perturbation on the 0-255 scale
    ListOf[Annotated[float, Field(ge=0, le=255)]], Field(min_length=1, max_length=100), AfterValidator(once_each)
]


class Settings(PlainData):
    """A protocol's section of a configuration (`protocols.<name>`), and what its jobs compute with.

    `not_of_job` names the settings from which the plan derives what a job gets otherwise (`Protocol.inputs`,
    `Protocol.companion`), or that choose what is measured: they are no part of a job. `no_reading` names those that are
    no reading of a paper (images per pass, what is measured besides): tables do not mention them.
    """

    not_of_job: ClassVar[frozenset[str]] = frozenset()
    no_reading: ClassVar[frozenset[str]] = frozenset()

    def of_job(self) -> dict[str, Any]:
        """The settings that a job computes with, as plain data."""
        return self.model_dump(mode="json", exclude={*self.not_of_job, "module"})

    def other_readings(self) -> dict[str, Any]:
        """The settings that differ from the project's rulings, of those that are readings of a paper."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={*self.no_reading, "module"})


class ChosenVariants(Settings):
    """Settings of a protocol that measures all variants it can, or those that `variants` names."""

    not_of_job = frozenset({"variants"})
    no_reading = frozenset({"variants", "batch_size"})

    variants: Annotated[ListOf[str], AfterValidator(once_each)] | None = None
    batch_size: BatchSize = 250  # images per pass


@dataclasses.dataclass(frozen=True)
class MetricKind:
    """A number that a protocol measures.

    Attributes:
        name: as in the record; its end says the unit (`_pct`). A `*` stands for the kinds of map or attack.
        title: in words.
        unit: `%`, `nats`, or empty.
        better: which direction is better; empty where neither is.
        condition: what `Metric.condition` holds (`eps=1`, a level); empty where it is always empty.
        of_labels: whether it needs the true class of each image.
    """

    name: str
    title: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    condition: str = ""
    of_labels: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """A dataset that a job evaluates on. `use` says what for, and `facts` what else the protocol must know of it."""

    name: str
    use: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Context:
    """What a measurement gets besides the network, its datasets and the settings.

    Attributes:
        targets: what each dataset is for, in the order of the datasets.
        inputs: what `Protocol.inputs` gave for this network.
        seed: the network's.
        folder: where temporary files may go.
        trained: the network's training record; None of a user's own network file.
        boxes: the file of the patch boxes that `Protocol.patches` named; None where it named none.
        companion: the network that `Protocol.companion` named; None where it named none, or its training failed.
        no_companion: why there is no companion; empty where there is one.
    """

    targets: Sequence[Target]
    inputs: Mapping[str, Any]
    seed: int
    folder: Path
    trained: Record | None = None
    boxes: Path | None = None
    companion: "AttentionClassifier | None" = None
    no_companion: str = "not asked for"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a protocol found for one network: its metrics, and small extra facts for the record.

    `hits` says which test images are right, (N,) bool by metric name and condition, for tests over images
    (`ltpa.core.per_image`); of protocols that are `per_image` alone. `extra["notes"]`, a list of sentences, is shown to
    who measures images of their own.
    """

    metrics: list[Metric]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    hits: "Mapping[tuple[str, str], np.ndarray]" = dataclasses.field(default_factory=dict)


class Scene(typing.Protocol):
    """What a protocol may ask about the configuration."""

    @property
    def trained_variants(self) -> Sequence[str]:
        """The variants that the configuration trains."""

    @property
    def known_variants(self) -> Sequence[str]:
        """All variants that are declared."""

    @property
    def known_roles(self) -> Sequence[str]:
        """The roles that declared datasets can fill."""

    def using(self, use: str) -> list[str]:
        """The configuration's datasets of one `use` (`config/datasets`), in its order."""

    def declared(self, dataset: str) -> Mapping[str, Any]:
        """What is declared of a dataset."""

    def role(self, dataset: str) -> str:
        """The dataset that this one stands for; its own name where it is no stand-in."""

    def locates(self, dataset: str) -> bool:
        """Whether a mask or a box says where the object is in the prepared images of a dataset."""

    def knows(self, dataset: str, what: str) -> bool:
        """Whether a dataset knows the places of the `objects` or the `parts` of its images."""

    def saliency(self, variant: str) -> dict[str, Any] | None:
        """How the class-agnostic map of a variant is made; None where it has none."""

    def network(self, variant: str) -> Any:
        """The options of a variant's network (`ltpa.models.options.NetworkOptions`)."""

    def is_queried(self, variant: str) -> bool:
        """Whether a global vector decides on the variant's attention, which another image could give."""

    def training(self, dataset: str, variant: str) -> Any:
        """The recipe by which a variant is trained on a dataset (`ltpa.training.recipe.Routine`)."""

    def settings(self, protocol: str) -> Any:
        """The settings of a protocol."""


class Protocol(abc.ABC):
    """One way to measure trained networks.

    Attributes:
        name: in configurations, rules, folders and records; a word in lower case.
        title: in words.
        about: one line for `--help`.
        section: of the paper; empty where it is beyond it.
        Settings: what can be chosen, with defaults and bounds.
        metrics: what it measures.
        learning: the kinds of training of the networks that it measures (`ltpa.training.recipe.KINDS`).
        per_image: whether it says of every test image whether it is right.
        on_source: every applicable network of the set of use `source` is measured, also where no table asks for it.
        about_checks: a line for each kind of its checks.
        needs_masks: a folder of images must come with masks.
        other_seed: the companion is of another seed: the first of the configuration, and for that one the second.
        settings_of: other protocols whose settings decide on its results, too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    section: ClassVar[str] = ""
    Settings: ClassVar[type[Settings]] = Settings
    metrics: ClassVar[tuple[MetricKind, ...]]
    learning: ClassVar[tuple[str, ...]] = ("cross-entropy",)
    per_image: ClassVar[bool] = False
    on_source: ClassVar[bool] = False
    about_checks: ClassVar[tuple[str, ...]] = ()
    needs_masks: ClassVar[bool] = False
    other_seed: ClassVar[bool] = False
    settings_of: ClassVar[tuple[str, ...]] = ()

    def check_names(self, scene: Scene, settings: Any) -> None:
        """Refuse settings that name what is not declared; here the variants of `ChosenVariants`.

        Raises:
            ConfigError: naming the key, the value and near matches.
        """
        if isinstance(settings, ChosenVariants):
            check_variants(scene, f"protocols.{self.name}.variants", settings.variants or ())

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Why the networks of `variant` trained on `dataset` are not measured; empty where they are."""
        settings = scene.settings(self.name)
        chosen = settings.variants if isinstance(settings, ChosenVariants) else None
        return "" if chosen is None or variant in chosen else f"not among protocols.{self.name}.variants"

    def targets(self, scene: Scene, dataset: str, variant: str) -> list[Target]:
        """The datasets that networks trained on `dataset` are evaluated on: its own, unless a protocol says more."""
        return [Target(dataset)]

    def inputs(self, scene: Scene, dataset: str, variant: str) -> dict[str, Any]:
        """What else a result depends on: plain data that the plan knows and the job does not."""
        return {}

    def row_groups(self, scene: Scene, variant: str) -> Sequence[str]:
        """The groups of rows that a variant has in a table without published values (`{group}`, as in the paper's)."""
        return ("",)

    def companion(self, scene: Scene, dataset: str, variant: str) -> str | None:
        """The variant whose network of the same dataset is read, too; None for none."""
        return None

    def patches(self, scene: Scene, dataset: str, variant: str) -> str:
        """The patch source whose boxes of the dataset are read; empty for none."""
        return ""

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """A user's own images as a target; `class_ids` are the network's classes where its folders are named so."""
        return Target(name)

    def folder_inputs(self, scene: Scene, variant: str) -> dict[str, Any]:
        """`inputs` for a user's own images."""
        return self.inputs(scene, "", variant)

    def compares_classes(self, settings: Any) -> bool:
        """Whether images of at least two classes are needed."""
        return False

    def lacks_maps(self, model: "AttentionClassifier", inputs: Mapping[str, Any]) -> bool:
        """Whether the network has none of the maps that the protocol looks at."""
        return False

    def check_facts(self, scene: Scene) -> dict[str, Any]:
        """What `checks` must know of the configuration, as plain data."""
        return {}

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterable[Check]:
        """What must hold for a run to be believed; nothing unless a protocol says so.

        Args:
            facts: those of `check_facts`.
            subject: the network and its dataset, in words.
            records: of the seeds that were measured, of one variant on one dataset.
            others: the records of each variant on that dataset, failed ones included.

        Raises:
            RecordError: a record lacks what is checked.
        """
        return ()

    @abc.abstractmethod
    def measure(
        self, model: "AttentionClassifier", datasets: "Sequence[PreparedDataset]", settings: Any, context: Context
    ) -> Measurement:
        """Measure one network, which is in evaluation mode on its device.

        Raises:
            DataError: a dataset lacks what is needed.
            NotFiniteError: the network gives numbers that are not finite; the caller names its file.
        """


def without_attention(scene: Scene, protocol: str, variant: str) -> str:
    """Why a protocol of trained attention with a setting `variants` passes a variant over; empty where it does not."""
    if not scene.network(variant).map_levels:
        return "has no trained attention"
    chosen = scene.settings(protocol).variants
    return "" if chosen is None or variant in chosen else f"not among protocols.{protocol}.variants"


def check_variants(scene: Scene, key: str, names: Iterable[str]) -> None:
    """Refuse names of variants that are not declared; `key` is that of the configuration.

    Raises:
        ConfigError: with near matches.
    """
    for name in names:
        if name not in scene.known_variants:
            raise ConfigError(f"key {key!r}: {unknown_name('variant', name, list(scene.known_variants))}")
