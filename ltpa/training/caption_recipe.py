"""The recipe of captioners, as plain data. Free of torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ltpa.training.recipe import UpdateRoutine


class CaptionRecipe(UpdateRoutine):
    """How a captioner is trained on scenes and their captions. Its trunk stays as it was trained before.

    Attributes:
        initialise: the role whose trained network of the same seed gives the trunk (`cells`), or all weights (a
            captioner).
        initialise_from: the variant of that network; empty for the same one.
        split: what the network is tested on: the `test` scenes, or for choices the `validation` scenes.
    """

    job: ClassVar[str] = "ltpa.stages.captions:CaptionJob"

    learning: Literal["captions"]
    initialise: Annotated[str, Field(min_length=1)]
    initialise_from: str = ""
    split: Literal["test", "validation"] = "test"
