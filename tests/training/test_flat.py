"""Flat vectors train a module exactly as torch's optimiser trains it tensor by tensor."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_job import RECIPE, ROWS
from torch import nn

from weighin.network.build import build, initialize
from weighin.network.spec import NetworkSpec
from weighin.params import Recipe
from weighin.training.trainer import make_optimizer
from weighin.training.weights import FlatModule, module_weights

SPEC = NetworkSpec.from_dict({"input": [16, 16], "width": 1.0, "rows": ROWS})
X = (
    torch.linspace(-1, 1, 6 * 3 * 16 * 16)
    .view(6, 3, 16, 16)
    .contiguous(memory_format=torch.channels_last)
)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
Groups = list[dict[str, object]]


def network() -> nn.Module:
    module = build(SPEC, 3)
    initialize(module, "flat")
    return module.to(memory_format=torch.channels_last).train()


def plain_groups(module: nn.Module, decay: float) -> Groups:
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


SGD = replace(RECIPE, optimizer="sgd", weight_decay=0.01)
ADAMW = replace(RECIPE, optimizer="adamw", weight_decay=0.01)
MAKERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, 0.1, 0.9, nesterov=True, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.1, (0.9, 0.999), fused=True),
}


@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_steps_are_those_of_torch_on_the_plain_module(recipe: Recipe) -> None:
    plain = network()
    flat = FlatModule(copy.deepcopy(plain))
    ours = make_optimizer(flat, recipe)
    theirs = MAKERS[recipe.optimizer](plain_groups(plain, 0.01))
    for step in range(4):
        for group in [*ours.param_groups, *theirs.param_groups]:
            group["lr"] = 0.1 / (step + 1)
        theirs.zero_grad()
        F.cross_entropy(plain(X), Y).backward()
        theirs.step()
        grads = torch.autograd.grad(F.cross_entropy(flat.module(X), Y), flat.leaves)
        for view, grad in zip(flat.views(flat.grads), grads, strict=True):
            view.copy_(grad)
        ours.step()
    expected, found = module_weights(plain), module_weights(flat.module)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


def test_every_number_is_a_view_into_three_vectors() -> None:
    flat = FlatModule(network())
    parameters = list(flat.module.parameters())
    assert sum(p.numel() for p in parameters) == len(flat.weights)
    flat.weights.fill_(2)
    assert all((p == 2).all() for p in parameters)
    flat.statistics.fill_(3)
    norms = [m for m in flat.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(flat.statistics) == sum(2 * n.num_features for n in norms)
    assert all((n.running_mean == 3).all() and (n.running_var == 3).all() for n in norms)


def test_norms_and_biases_are_not_decayed() -> None:
    flat = FlatModule(network())
    decayed = sum(p.numel() for p in flat.module.parameters() if p.ndim > 1)
    assert (flat.decayed, flat.trained) == (decayed, len(flat.weights))
    before = flat.weights.clone()
    make_optimizer(flat, replace(SGD, momentum=0.0, lr=0.5)).step()  # gradients are zero
    torch.testing.assert_close(flat.weights[:decayed], before[:decayed] * (1 - 0.5 * 0.01))
    assert torch.equal(flat.weights[decayed:], before[decayed:])


def trained_names(freeze: str) -> set[str]:
    flat = FlatModule(network(), freeze)
    return {name for name, p in flat.module.named_parameters() if p.requires_grad}


def test_what_freezing_leaves() -> None:
    module = network()
    names = {name for name, _ in module.named_parameters()}
    convolutions = {n for n, p in module.named_parameters() if p.ndim == 4}
    biased = {n.replace("weight", "bias") for n in convolutions} & names
    norms = {
        f"{path}.{kind}"
        for path, m in module.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    head = {n for n, p in module.named_parameters() if p.ndim == 2}
    head |= {n.replace("weight", "bias") for n in head}
    assert trained_names("nothing") == names
    assert trained_names("all-but-convolutions") == convolutions | biased
    assert trained_names("all-but-norms-and-head") == norms | head


def test_frozen_weights_do_not_move() -> None:
    flat = FlatModule(network(), "all-but-norms-and-head")
    before = module_weights(flat.module)
    flat.grads.fill_(1)
    make_optimizer(flat, SGD).step()
    after = module_weights(flat.module)
    moved = {name for name in before if not (before[name] == after[name]).all()}
    assert moved == trained_names("all-but-norms-and-head")
