"""Modules that change over a training."""

import abc


class Scheduled(abc.ABC):
    """A module, or a part of one, that is told how far its training has come.

    What it makes of it must be a function of `share` alone: a run that is resumed tells it again. In evaluation it must
    not matter.
    """

    @abc.abstractmethod
    def advance(self, share: float) -> bool:
        """Called before each step with the share of all steps that is done, 0 at the first step and below 1.

        Returns whether steps are computed in another way from now on, so that a recorded one is no longer right.
        """
