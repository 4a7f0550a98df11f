"""Three counts of one network: the contest's rule, torch's operators, ptflops; they must agree.

The rule alone can be fooled (a subclass of nn.Conv2d counts nothing), so a network is accepted only
if neither of the others sees more work in convolutions and matrix products than the rule.
"""

from pathlib import Path

from torch import nn

from weighin.errors import HiddenWorkError
from weighin.images import Size
from weighin.network.build import build
from weighin.network.crosscheck import FIX, reject_hidden_work
from weighin.network.folding import fold_batch_norms
from weighin.network.macs import count_macs, count_parameters, layer_macs
from weighin.network.spec import read_spec

TOLERANCE = 0.02  # ptflops prices biases in its own way


def vet(module: nn.Module, size: Size) -> int:
    """Return what ptflops counts of an honest network (operators of ATen, multiply-accumulates).

    Raises:
        HiddenWorkError: the operators that ran, or ptflops, see work that the rule does not.
    """
    reject_hidden_work(module, size)
    counted = ptflops_macs(module, size)
    rule = sum(c.macs for c in layer_macs(module, size) if c.kind in ("Conv2d", "Linear"))
    if counted > rule * (1 + TOLERANCE):
        problem = f"ptflops counts {counted:,} MACs in convolutions and linear layers, the rule"
        raise HiddenWorkError(f"{problem} {rule:,}", FIX)
    return counted


def ptflops_macs(module: nn.Module, size: Size) -> int:
    """Return ptflops' count of convolutions and linear layers, whatever runs them."""
    from ptflops import get_model_complexity_info

    was_training = module.training
    counted, _ = get_model_complexity_info(
        module.eval(),
        (3, *size),
        backend="aten",
        as_strings=False,
        print_per_layer_stat=False,
        verbose=False,
    )
    module.train(was_training)
    return int(counted)


def tally(path: Path, classes: int, layers: bool) -> list[str]:
    """Return the lines that `weighin count` prints of a rows file.

    Raises:
        NetworkError: the rows do not make a network.
        HiddenWorkError: as `vet`.
    """
    spec = read_spec(path)
    module = build(spec, classes)
    second = vet(module, spec.input)
    listed = layer_macs(module, spec.input) if layers else []
    lines = [f"{cost.macs:>12,}  {cost.kind:<18} {cost.path}" for cost in listed]
    return [
        *lines,
        f"{count_macs(module, spec.input):,} MACs, {count_parameters(module):,} parameters",
        f"{count_macs(fold_batch_norms(module), spec.input):,} MACs with its batch norms folded",
        f"{second:,} MACs of convolutions and linear layers by ptflops",
    ]
