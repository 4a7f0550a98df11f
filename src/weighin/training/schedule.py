"""The learning rate at every step."""

import math

from weighin.params import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate at `step` of `steps`: a linear warm-up to the peak, then the schedule.

    one-cycle falls to zero along a line (Smith and Topin, "Super-convergence", 2018), cosine along
    half a cosine (Loshchilov and Hutter, "SGDR", 2017), constant stays.
    """
    warm = recipe.warmup * steps
    if step + 1 <= warm:
        return _steady(recipe.lr * (step + 1) / warm)
    done = (step + 1 - warm) / max(steps - warm, 1)
    if recipe.schedule == "one-cycle":
        return _steady(recipe.lr * (1 - done + 1e-3))
    if recipe.schedule == "cosine":
        return _steady(recipe.lr * (0.5 + 0.5 * math.cos(math.pi * done) + 1e-3))
    return _steady(recipe.lr)


def average_decay(recipe: Recipe, step: int) -> float:
    """Return the decay of the weight average at `step`; it begins fast, so early epochs count."""
    return min(recipe.ema, (1 + step) / (10 + step))


def _steady(rate: float) -> float:
    return float(f"{rate:.9e}")  # two C libraries' cosines may differ in the last bit
