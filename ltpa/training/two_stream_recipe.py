"""The recipe of two-stream networks (Shroff 2020), as plain data. Free of torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ltpa.training.recipe import Images, NotNegative, Routine

SCRATCH = "scratch"
WEIGHTS_BY_NAME = ("imagenet", SCRATCH)  # anything else is a file


class TwoStreamRecipe(Routine):
    """How a two-stream network is trained.

    Attributes:
        lr: learning rate of the global stream.
        lr_local: of local trunk, LSTM, attention and local classifier, on the same schedule.
        augment: random views of an image, which its boxes follow (`ltpa.models.twostream.inputs.draw_views`).
        label_smoothing: of the cross-entropies.
        drop_last: whether the images of a last short batch are left out of an epoch, or learned from, too.
        evaluation_batch: images of 448 px are large.
        weights: those that the trunks begin with: `imagenet`, `scratch` (random), or a file.
        patches: the patch source (`protocols.patches.sources`); empty for a network without a local stream.
        boxes: how many of each image's boxes are used.
        split: what the network is tested on: the `test` images, or for choices `validation` images, a tenth of every
            class of the training images, which are held out. Tables take nothing from the latter.
    """

    job: ClassVar[str] = "ltpa.stages.two_stream:TwoStreamJob"

    learning: Literal["two-stream"]
    lr_local: NotNegative
    augment: Literal["none", "flip_crop", "resized_crop"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_last: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluation_batch: Images = 16
    weights: str = "imagenet"
    patches: str = ""
    boxes: Annotated[int, Field(ge=1, le=10_000)] = 10
    split: Literal["test", "validation"] = "test"

    @property
    def patch_source(self) -> str:
        """`patches`."""
        return self.patches

    @property
    def pretraining(self) -> str:
        """ImageNet's or a file's."""
        return {SCRATCH: "", "imagenet": "trunks begin with ImageNet weights"}.get(
            self.weights, f"trunks begin with the weights of {self.weights}"
        )

    @property
    def weight_file(self) -> str:
        """`weights` where they are a file."""
        return "" if self.weights in WEIGHTS_BY_NAME else self.weights
