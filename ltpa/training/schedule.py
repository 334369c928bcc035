"""The learning rate as a pure function of recipe and step."""

import math

from ltpa.training.recipe import Routine


def epoch_rate(recipe: Routine, epoch: int) -> float:
    """The rate in `epoch` (counted from 1), before the per-step decay; of a schedule per step the one half-way."""
    if recipe.schedule.per == "step":
        return _moving_rate(recipe, epoch - 0.5)
    return _course(recipe, epoch) * min(1.0, epoch / (recipe.schedule.warmup + 1))


def step_rate(recipe: Routine, step: int, steps_per_epoch: int) -> float:
    """The rate of one step; `step` counts from 0 over the whole run (Torch7: lr / (1 + step * decay))."""
    if recipe.schedule.per == "step":
        rate = _moving_rate(recipe, (step + 1) / steps_per_epoch)
    else:
        rate = epoch_rate(recipe, step // steps_per_epoch + 1)
    return rate / (1 + step * recipe.lr_decay)


def _moving_rate(recipe: Routine, passed: float) -> float:
    """The rate after `passed` epochs, which need not be whole, of a schedule that moves with every step."""
    schedule = recipe.schedule
    risen = min(1.0, passed / schedule.warmup) if schedule.warmup else 1.0
    return recipe.lr * risen * (_cosine(passed / recipe.epochs) if schedule.kind == "cosine" else 1.0)


def _cosine(share: float) -> float:
    """From 1 to 0 over the run, of which `share` is done."""
    return 0.5 * (1 + math.cos(math.pi * share))


def _course(recipe: Routine, epoch: int) -> float:
    """The rate of a schedule per epoch, without warm-up.

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
        return recipe.lr * _cosine((epoch - 1) / recipe.epochs)
    return recipe.lr
