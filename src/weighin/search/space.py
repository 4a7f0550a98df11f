"""A search space: a rows file in which any value may be a list of choices, and what is drawn of it.

    input: packed          # or [[46, 64], [64, 64]]: any of these packed sizes
    width: 1.0
    rows:
    - name: stage1
      repeats: [1, 2, 3]
      block:               # one of these; `pass` leaves the row out
        InvertedResidualv3: {k: [3, 5], t: [2, 3], se: [0, 1], hs: 1}
        ShuffleNetV2: {}
        pass: {}
      args: {c: [16, 24], s: 2}     # for every block above that takes them

A list is a choice of its parts, in an order that means something (from few MACs to many), anything
else is fixed; an argument that is itself a list is therefore written [[3, 5]]. Blocks and their
arguments are those of `weighin.network.blocks`: a new block needs nothing here.
"""

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from weighin.errors import ParamsError, did_you_mean
from weighin.files import read_yaml
from weighin.images import Size
from weighin.network.blocks import BLOCKS
from weighin.network.build import arguments
from weighin.network.spec import MAX_REPEATS, MAX_WIDTH, PLAIN, NetworkSpec, Row, key_faults
from weighin.validation import check_value

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

PASS = "pass"
KEYS, ROW_KEYS = ("input", "width", "rows"), ("name", "repeats", "block", "args")
Choices = tuple[Any, ...]
STARTUP = 8  # random trials before TPE has something to model


@dataclass(frozen=True)
class Argument:
    """An argument's choices, and the name that the draw goes by."""

    name: str
    choices: Choices


@dataclass(frozen=True)
class RowSpace:
    """The choices of one row: {block: its arguments in order}."""

    name: str
    repeats: Choices
    blocks: dict[str, tuple[Argument, ...]]


@dataclass(frozen=True)
class Space:
    """What the search chooses from."""

    input: tuple[Size, ...]
    width: Choices
    rows: tuple[RowSpace, ...]

    def count(self) -> int:
        """Return how many draws there are; some may make the same network."""
        return len(self.input) * len(self.width) * math.prod(map(_row_count, self.rows))


def shipped_spaces() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def read_space(name: str, sizes: list[Size]) -> Space:
    """Return a shipped space or the one in a YAML file, for images packed at `sizes`.

    Raises:
        ParamsError: one line for every fault, each naming its row.
    """
    path = _path(name)
    values = read_yaml(path)
    faults = _form_faults(values)
    numbered = enumerate([] if faults else values["rows"], 1)
    rows = [_row(number, row, faults) for number, row in numbered]
    names = [row.name for row in rows if row is not None]
    faults += [f"two rows are called {n}" for n in sorted(set(names)) if names.count(n) > 1]
    if faults:
        fix = f"edit {path}; the form is explained at the top of weighin/search/space.py"
        raise ParamsError("\n".join(f"{path}: {fault}" for fault in faults), fix)
    inputs = _inputs(values["input"], sizes, path)
    return Space(inputs, _choices(values["width"]), tuple(r for r in rows if r is not None))


def _folder() -> Path:
    return Path(__file__).with_name("spaces")


def _path(name: str) -> Path:
    if name in shipped_spaces():
        return _folder() / f"{name}.yaml"
    if not Path(name).is_file():
        problem = f"search.space is {name}: neither a file nor a shipped space"
        raise ParamsError(problem, f"name a YAML file, or one of {', '.join(shipped_spaces())}")
    return Path(name)


def _inputs(value: Any, sizes: list[Size], path: Path) -> tuple[Size, ...]:
    """Return the input sizes from few pixels to many."""
    chosen = sizes if value == "packed" else [(height, width) for height, width in value]
    absent = [list(size) for size in chosen if size not in sizes]
    if absent:
        problem = f"{path}: input {absent[0]} is not packed"
        raise ParamsError(problem, f"add {absent[0]} to prepare.sizes in params.yaml")
    return tuple(sorted(chosen, key=lambda size: (size[0] * size[1], size)))


def _form_faults(values: Any) -> list[str]:
    if not isinstance(values, Mapping):
        return [f"must be a mapping of {', '.join(KEYS)}"]
    faults = key_faults(values, KEYS, KEYS)
    if "input" in values:
        faults += _input_faults(values["input"])
    if "width" in values:
        faults += [
            f"width is {width}; it must be a number over 0 to {MAX_WIDTH:g}"
            for width in _choices(values["width"])
            if type(width) not in (int, float) or not 0 < width <= MAX_WIDTH
        ]
        faults += [] if _choices(values["width"]) else ["width has no choices"]
    if "rows" in values and not (isinstance(values["rows"], list) and values["rows"]):
        faults.append("rows must be a list of at least one row")
    return faults


def _input_faults(value: Any) -> list[str]:
    if value == "packed":
        return []
    sizes = value if isinstance(value, list) and value else [None]
    if all(isinstance(s, list) and len(s) == 2 and all(type(n) is int for n in s) for s in sizes):
        return []
    return [f"input is {value}; it must be `packed` or a list of [height, width]"]


def _row(number: int, row: Any, faults: list[str]) -> RowSpace | None:
    """Return a row's choices; its faults are added to `faults`."""
    found = _row_form_faults(row)
    if found:
        faults += [f"row {number}: {fault}" for fault in found]
        return None
    name = f"row {number} ({row['name']})"
    repeats = _choices(row.get("repeats", 1))
    if not repeats or not all(type(n) is int and 1 <= n <= MAX_REPEATS for n in repeats):
        faults.append(f"{name}: repeats must be whole numbers 1 to {MAX_REPEATS}")
    shared = row.get("args") or {}
    blocks = {
        block: _block(row["name"], block, own or {}, shared, faults)
        for block, own in row["block"].items()
    }
    used = {key for block in blocks for key in _signature(block)}
    faults += [f"{name}: no block takes {key}" for key in shared if key not in used]
    return RowSpace(row["name"], repeats, blocks)


def _row_form_faults(row: Any) -> list[str]:
    if not isinstance(row, Mapping):
        return [f"is {row}; it must be a mapping of {', '.join(ROW_KEYS)}"]
    faults = key_faults(row, ROW_KEYS, ("name", "block"))
    if "name" in row and not (isinstance(row["name"], str) and PLAIN.fullmatch(row["name"])):
        faults.append(f"name is {row['name']}; letters, digits, - and _ go")
    if not isinstance(row.get("args") or {}, Mapping):
        faults.append("args must be a mapping of arguments to choices")
    blocks = row.get("block", {PASS: None})
    if not isinstance(blocks, Mapping) or not blocks:
        return [*faults, "block must be a mapping of blocks to their arguments"]
    for block, own in blocks.items():
        if block != PASS and block not in BLOCKS:
            faults.append(f"unknown block {block}{did_you_mean(str(block), [*BLOCKS, PASS])}")
        if not isinstance(own or {}, Mapping):
            faults.append(f"{block} must be a mapping of arguments to choices")
    return faults


def _block(
    row: str, block: str, own: Mapping[str, Any], shared: Mapping[str, Any], faults: list[str]
) -> tuple[Argument, ...]:
    """Return a block's arguments; what is not named has its default."""
    kinds, where = _signature(block), f"{row}, {block}"
    odd = [key for key in own if key not in kinds]
    faults += [f"{where}: unknown argument {key}{did_you_mean(key, kinds)}" for key in odd]
    given = []
    for key, (hint, default) in kinds.items():
        name, choices = f"{row}.{block}.{key}" if key in own else f"{row}.{key}", (default,)
        if key in own or key in shared:
            choices = _choices(own[key] if key in own else shared[key])
            faults += _choice_faults(hint, choices, f"{where}: {key}")
        elif default is inspect.Parameter.empty:
            faults.append(f"{where}: {key} is missing")
        given.append(Argument(name, choices))
    return tuple(given)


def _choice_faults(hint: Any, choices: Choices, name: str) -> list[str]:
    if not choices:
        return [f"{name} has no choices"]
    known = [choice for choice in choices if choice != "classes"]
    return [fault for choice in known for fault in check_value(hint, choice, name)[1]]


def _signature(block: str) -> dict[str, tuple[Any, Any]]:
    return {} if block == PASS else arguments(BLOCKS[block])


def _choices(value: Any) -> Choices:
    parts = value if isinstance(value, list) else [value]
    return tuple(tuple(part) if isinstance(part, list) else part for part in parts)


def _row_count(row: RowSpace) -> int:
    """Return the draws of a row: the sum over its blocks of the products of their choices."""
    return sum(
        1 if block == PASS else len(row.repeats) * math.prod(len(arg.choices) for arg in args)
        for block, args in row.blocks.items()
    )


def sampler(name: str, generation: int, seed: int) -> "BaseSampler":
    """Return the sampler of that name for studies of so many trials a generation.

    To TPE a generation's running trials count as bad ("constant liar"), so that it spreads them.
    """
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    if name == "random":
        return RandomSampler(seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=max(2, generation), seed=seed)
    with warnings.catch_warnings():  # Optuna calls group and constant_liar experimental
        warnings.simplefilter("ignore")
        return TPESampler(
            n_startup_trials=max(STARTUP, generation),
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


class Suggests(Protocol):
    """What is needed of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices, which have no order."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""


def sample_network(space: Space, trial: Suggests) -> tuple[NetworkSpec, dict[str, Any]]:
    """Return one network of `space`, and the values that `trial` chose for it, by name."""
    choices = _Picks(trial)
    size, width = choices.pick("input", space.input), choices.pick("width", space.width)
    rows = (_sample_row(row, choices) for row in space.rows)
    return NetworkSpec(size, width, tuple(row for row in rows if row)), choices.values


def _sample_row(row: RowSpace, choices: "_Picks") -> Row | None:
    block = choices.pick(f"{row.name}.block", tuple(row.blocks))
    if block == PASS:
        return None
    repeats = choices.pick(f"{row.name}.repeats", row.repeats)
    args = (choices.pick(arg.name, arg.choices) for arg in row.blocks[block])
    return Row(repeats, block, tuple(args))


class _Picks:
    """Makes choices by name and remembers them; nothing is chosen from a single value."""

    def __init__(self, trial: Suggests) -> None:
        self._trial = trial
        self.values: dict[str, Any] = {}

    def pick(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`: names have no order, anything else has the one it stands in."""
        if len(choices) == 1:
            return choices[0]
        if name not in self.values:
            if any(isinstance(choice, str) for choice in choices):
                value = self._trial.suggest_categorical(name, choices)
            else:
                value = choices[self._trial.suggest_int(name, 0, len(choices) - 1)]
            self.values[name] = value
        return self.values[name]
