"""SGD with Nesterov's momentum, or AdamW, on a flat module's vectors."""

import torch
from torch import Tensor, nn

from weighin.params import Recipe
from weighin.training.flat import FlatModule


class Optimizer:
    """A fused torch optimiser over two vectors: the decayed weights and the others.

    Fused kernels give the same bytes on every processor; `foreach` AdamW does not (its square root
    is another instruction there).
    """

    def __init__(self, flat: FlatModule, recipe: Recipe) -> None:
        bounds = [(0, flat.decayed, recipe.weight_decay), (flat.decayed, flat.trained, 0.0)]
        self._parts = []
        groups = []
        for start, end, decay in bounds:
            if end > start:
                part = nn.Parameter(flat.weights[start:end])
                part.grad = flat.grads[start:end]
                self._parts.append(part)
                groups.append({"params": [part], "weight_decay": decay})
        self._torch = self._make(groups, recipe)
        for part in self._parts:
            self._torch.state[part] = self._fresh(part, recipe)

    @staticmethod
    def _make(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
        if recipe.optimizer == "sgd":
            nesterov = recipe.momentum > 0
            return torch.optim.SGD(
                groups, recipe.lr, recipe.momentum, nesterov=nesterov, fused=True
            )
        return torch.optim.AdamW(groups, recipe.lr, (recipe.momentum, 0.999), fused=True)

    @staticmethod
    def _fresh(part: Tensor, recipe: Recipe) -> dict[str, Tensor]:
        if recipe.optimizer == "sgd":
            return {"momentum_buffer": torch.zeros_like(part)} if recipe.momentum else {}
        zeros = {name: torch.zeros_like(part) for name in ("exp_avg", "exp_avg_sq")}
        return zeros | {"step": torch.zeros(())}

    def step(self, rate: float) -> None:
        """Change the weights by the gradients at a learning rate."""
        for group in self._torch.param_groups:
            group["lr"] = rate
        self._torch.step()

    def state(self) -> dict[str, Tensor]:
        """Return the live state tensors by name."""
        return {
            f"{index}.{name}": value
            for index, part in enumerate(self._parts)
            for name, value in self._torch.state[part].items()
        }
