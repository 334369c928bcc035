"""Settings of patch boxes and of prototypes, declared once: configuration, plan and jobs read these classes.

Free of NumPy and torch. `ltpa.evaluation.patches` and `ltpa.training.protopnet` do what is set here.
"""

from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from ltpa.core.schema import ListOf, PlainData

CLEAN: Final = "clean"
PARITY: Final = "parity"
NETWORK_MODES = ("protolite", "protopnet", "cam_window")  # modes that read a trained network
RELEASED = "released"  # the mode that reads the user's files

Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Pair = Annotated[ListOf[Share], Field(min_length=2, max_length=2)]
Rate = Annotated[float, Field(ge=0, le=10)]  # of Adam, which moves a weight by about the rate at every step
Weight = Annotated[float, Field(ge=0, le=1000)]  # of a loss, beside a cross-entropy of weight 1
Epochs = Annotated[int, Field(ge=1, le=10**6)]
Count = Annotated[int, Field(ge=1, le=10**5)]


class PatchSettings(PlainData):
    """Settings of the extraction; lengths and areas are fractions of the image's.

    Upper limits of counts stand far above any use, and low enough for the arrays to fit into memory.

    Attributes:
        boxes: boxes per image, N.
        cleaning: `clean`, or `parity` with the reference.
        percentile: a map's box holds what is at or above this percentile of its values; it alone sets the scale.
        smooth: side in cells of the mean that a map passes first under `clean`, odd; 1 for none.
        grid: maps of more cells on a side are averaged down to this many.
        level: layer whose map is read, a name among the network's local features; empty for its last.
        min_side: sides below it are grown to `grown_side`.
        grown_side: see `min_side`.
        max_aspect: the short side is grown until the long one is at most so many times as long.
        max_area: a map whose box is larger is passed over.
        max_iou: a box that overlaps a better one more than this is passed over.
        window_iou: the same among windows of one scale.
        clusters: prototypes sought by k-means (`protolite`).
        cells_per_image: cells of a training image it looks at.
        iterations: its most iterations.
        min_share: prototypes present in a smaller share of the training images are dropped.
        center_sides: sides of the smallest and the largest of the central boxes.
        random_areas: quantiles of the area of random boxes as (probability, area), between which log area is linear.
        random_aspect: 95 % of random boxes have an aspect of at most this.
        batch_size: images per forward pass.
    """

    boxes: Annotated[int, Field(ge=1, le=1000)] = 10
    cleaning: Literal["clean", "parity"] = CLEAN
    percentile: Annotated[float, Field(gt=0, lt=100)] = 95.0
    smooth: Annotated[int, Field(ge=1, le=999)] = 3
    grid: Annotated[int, Field(ge=1, le=1000)] = 14
    level: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]*)?$", max_length=60)] = ""
    min_side: Share = 32 / 448
    grown_side: Share = 64 / 448
    max_aspect: Annotated[float, Field(ge=1, le=1000)] = 4.0
    max_area: Part = 0.9
    max_iou: Part = 0.9
    window_iou: Share = 0.25
    clusters: Count = 200
    cells_per_image: Count = 20
    iterations: Count = 50
    min_share: Share = 0.01
    center_sides: Annotated[ListOf[Part], Field(min_length=2, max_length=2)] = (96 / 448, 320 / 448)
    random_areas: Annotated[ListOf[Pair], Field(min_length=2, max_length=1000)] = (
        (0, 0.053), (0.05, 0.0621), (0.5, 0.1031), (0.95, 0.567), (1, 1),
    )  # fmt: skip
    random_aspect: Annotated[float, Field(ge=1, le=1000)] = 2.68
    batch_size: Count = 64

    @field_validator("smooth")
    @classmethod
    def _odd(cls, side: int) -> int:
        """A mean over an even number of cells has no cell in the middle."""
        if side % 2 == 0:
            raise ValueError("must be odd; 1 for none")
        return side

    @field_validator("center_sides")
    @classmethod
    def _rising(cls, sides: tuple[float, ...]) -> tuple[float, ...]:
        if sides[0] > sides[1]:
            raise ValueError("must name the smallest side first")
        return sides

    @field_validator("random_areas")
    @classmethod
    def _quantiles(cls, table: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        """A distribution of the logarithm of an area."""
        ends = table[0][0] == 0 and table[-1][0] == 1 and table[0][1] > 0
        if not ends or any(low[0] >= high[0] or low[1] > high[1] for low, high in pairwise(table)):
            raise ValueError("must be pairs [probability, area]: probabilities from 0 to 1, areas above 0, both rising")
        return table

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.min_side > self.grown_side:
            raise ValueError(
                f"grown_side is {self.grown_side:g}: sides below min_side, {self.min_side:g}, are grown to it; it must "
                "not be smaller"
            )
        return self


# The sets that `protocols.patches.protopnet.routine` names: what each changes in the defaults.
# `st-protopnet`: epochs, warm-up, pushes, steps of the rate and distortions of ST-ProtoPNet (Wang et al. 2023) for
# whole images; losses, rates and passes of the last layer of ProtoPNet; `freeze_norm` is our own.
# `protopnet`: the settings of ProtoPNet's own code.
ROUTINES: dict[str, dict[str, Any]] = {
    "st-protopnet": {},
    "protopnet": {
        "epochs": 1000, "warm_epochs": 5, "freeze_norm": False, "first_push": 10, "decay_every": 5, "rotation": 15.0,
        "shear": 10.0,
    },
}  # fmt: skip


class PrototypeTraining(PlainData):
    """Settings of the training of ProtoPNet's prototypes.

    Attributes:
        routine: the set of `ROUTINES` that settings are taken from where they are left out.
        per_class: prototypes of each class.
        width: length of a prototype.
        epochs: in all.
        warm_epochs: of them, those in which the trunk rests.
        freeze_norm: whether the trunk's normalisation and dropout rest, too, whenever its weights do.
        first_push: epoch after which prototypes are first pushed; they are after the last one in any case.
        push_every: epochs between pushes.
        last_epochs: passes of the last layer alone after each push.
        batch_size: images per step.
        trunk_lr: rate of the trunk, by Adam like all rates.
        add_on_lr: rate of the added convolutions and of the prototypes.
        last_lr: rate of the last layer.
        weight_decay: of trunk and added convolutions.
        decay_every: joint epochs after which the rates of trunk, convolutions and prototypes fall to a tenth.
        cluster: weight of the mean least distance to a prototype of the image's own class.
        separation: weight of the mean least distance to one of another class, which is to be large.
        sparsity: weight of the last layer's absolute weights between prototypes and other classes.
        rotation: most degrees an image is turned either way.
        shear: most degrees it is sheared either way; at 90 nothing of it would be left.
        checkpoint_seconds: seconds between saved states; without effect on the result.
    """

    routine: Literal["st-protopnet", "protopnet"] = "st-protopnet"
    per_class: Annotated[int, Field(ge=1, le=1000)] = 10
    width: Count = 128
    epochs: Epochs = 120
    warm_epochs: Annotated[int, Field(ge=0, le=10**6)] = 10
    freeze_norm: bool = True
    first_push: Annotated[int, Field(ge=0, le=10**6)] = 100
    push_every: Epochs = 10
    last_epochs: Annotated[int, Field(ge=0, le=10**6)] = 20
    batch_size: Count = 80
    trunk_lr: Rate = 1e-4
    add_on_lr: Rate = 3e-3
    last_lr: Rate = 1e-4
    weight_decay: Rate = 1e-3
    decay_every: Epochs = 10
    cluster: Weight = 0.8
    separation: Weight = 0.08
    sparsity: Weight = 1e-4
    rotation: Annotated[float, Field(ge=0, le=180)] = 25.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 15.0
    checkpoint_seconds: Annotated[float, Field(ge=0, le=10**6)] = 60.0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Settings of the named set below those that are given."""
        chosen = values.get("routine") if isinstance(values, dict) else None
        return {**ROUTINES[chosen], **values} if isinstance(chosen, str) and chosen in ROUTINES else values

    @model_validator(mode="after")
    def _warms_up(self) -> Self:
        if self.warm_epochs > self.epochs:
            raise ValueError(f"warm_epochs is {self.warm_epochs} of {self.epochs} epochs; lower it")
        return self

    def pushes_after(self, epoch: int) -> bool:
        """Whether prototypes are pushed after `epoch`, the first of which is 1."""
        due = epoch >= self.first_push and (epoch - self.first_push) % self.push_every == 0
        return due or epoch == self.epochs

    def decay(self, epoch: int) -> float:
        """What the rates of trunk, convolutions and prototypes are multiplied with in a joint `epoch`."""
        return float(0.1 ** ((epoch - self.warm_epochs - 1) // self.decay_every))


class PatchSource(PlainData):
    """One patch source: its declaration in `config/patches.yaml`, and what a configuration puts behind it.

    Attributes:
        mode: how boxes come about.
        map: the saliency map of mode `cam_window`.
        network: the variant behind it; empty for sources without.
        saliency: that variant's declaration of its attention maps.
        released: array file by split, of mode `released`.
        protopnet: settings of the training of mode `protopnet`.
    """

    mode: Literal["protolite", "protopnet", "cam_window", "center", "random", "full", "released"]
    map: Literal["", "mean", "cam", "gradcam", "attention"] = ""
    network: str = ""
    saliency: dict[str, Any] | None = None
    released: dict[str, str] | None = None
    protopnet: PrototypeTraining | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.mode in NETWORK_MODES and not self.network:
            raise ValueError(f"mode {self.mode} needs the network behind it; name a variant")
        if self.mode not in NETWORK_MODES and self.network:
            raise ValueError(f"mode {self.mode} has no network behind it, and {self.network} is named; write none")
        if (self.mode == "cam_window") != bool(self.map):
            raise ValueError(f"mode {self.mode} with map {self.map!r}; cam_window and no other mode needs a map")
        if self.mode == "protopnet" and self.protopnet is None:
            raise ValueError("mode protopnet needs the settings of its training; set protopnet")
        for split in ("train", "test") if self.mode == RELEASED else ():
            if split not in (self.released or {}):
                raise ValueError(
                    f"mode released needs your copy of the arrays; set protocols.patches.released, {split}: PATH"
                )
        return self


# The statistics of a split's boxes (`ltpa.evaluation.patch_quality.statistics`), by what must be known of its images.
STATISTICS = {
    "": (
        "area_frac_p5", "area_frac_p50", "area_frac_p95", "mean_area_rank1", "mean_area_last_rank", "min_side",
        "aspect_p95", "aspect_max", "full_image_rate", "touches_border_rate", "exact_unique_per_image", "pair_iou_mean",
        "pair_iou_gt_0.9_rate", "union_area", "fallback_rate", "repeat_rate",
    ),
    "objects": ("inside_object", "misses_object_rate", "centre_in_object"),
    "parts": (
        "overlaps_part", "part_coverage_union", "part_coverage_rank1", "part_coverage_box", "contains_part",
        "rank1_contains_part", "any_contains_part",
    ),
}  # fmt: skip
