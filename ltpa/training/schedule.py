"""The learning rate as a pure function of recipe, epoch and step."""

import math

from ltpa.training.recipe import Recipe


def epoch_rate(recipe: Recipe, epoch: int) -> float:
    """The rate in `epoch` (counted from 1), before the per-step decay."""
    return _course(recipe, epoch) * min(1.0, epoch / (recipe.schedule.warmup + 1))


def _course(recipe: Recipe, epoch: int) -> float:
    """The schedule's rate without warm-up.

    The drop happens at the start of the named epoch, as in cifar.torch: with `every` 25, epochs 1 to 24 run at the base
    rate (paper appendix A.3).
    """
    schedule = recipe.schedule
    if schedule.kind == "every":
        return recipe.lr * schedule.factor ** (epoch // schedule.period)
    if schedule.kind == "milestones":
        reached = [f for m, f in zip(schedule.milestones, schedule.factors, strict=True) if epoch >= m]
        return recipe.lr * math.prod(reached)
    if schedule.kind == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / recipe.epochs))
    return recipe.lr


def step_rate(recipe: Recipe, epoch: int, step: int) -> float:
    """The rate of one step; `step` counts from 0 over the whole run (Torch7: lr / (1 + step * decay))."""
    return epoch_rate(recipe, epoch) / (1 + step * recipe.lr_decay)
