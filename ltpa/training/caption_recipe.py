"""The recipe of captioners, as plain data. Free of torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ltpa.training.recipe import UpdateRoutine


class CaptionRecipe(UpdateRoutine):
    """How a captioner is trained on scenes and their captions; its trunk stays as the network that it starts from has it.

    Attributes:
        initialise: the role whose trained network of the same seed gives the trunk, or all weights but the words it says.
        initialise_from: the variant of that network; empty for the same one.
        split: what the network is tested on: the `test` scenes, or for choices the `validation` scenes.
    """

    job: ClassVar[str] = "ltpa.stages.captions:CaptionJob"

    learning: Literal["captions"]
    initialise: Annotated[str, Field(min_length=1)]
    split: Literal["test", "validation"] = "test"
