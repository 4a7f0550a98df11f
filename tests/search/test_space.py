"""A space is a rows file with choices: what it counts, what it draws, what it refuses."""

from pathlib import Path

import pytest
from optuna.trial import FixedTrial

from weighin.errors import ParamsError
from weighin.network.build import structure
from weighin.search.space import read_space, sample_network, shipped_spaces

SIZES = [(46, 64), (64, 64)]
SPACE = """\
input: [[46, 64]]
width: 1.0
rows:
- name: stem
  block:
    Conv: {c: [8, 16], k: 3, s: 2, act: [ReLU, HardSwish]}
- name: stage
  repeats: [1, 2]
  block:
    MixNetBlock: {kernels: [[3], [3, 5]], t: 2, c: 24, se: 0}
    ShuffleNetV2:
    pass:
  args: {c: [16, 32], s: 2}
- name: pool
  block: {GlobalAvgPool: }
- name: head
  block: {Linear: {c: classes}}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "space.yaml"
    path.write_text(text)
    return str(path)


def test_draws_are_counted(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, SPACE), SIZES)
    # stem 2 * 2; MixNet 2 repeats * 2 kernels, Shuffle 2 repeats, pass 1
    assert space.count() == 4 * (2 * 2 + 2 + 1)


def test_a_draw_is_a_rows_file(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, SPACE), SIZES)
    values = {
        "stem.Conv.c": 1,
        "stem.Conv.act": "HardSwish",
        "stage.block": "MixNetBlock",
        "stage.repeats": 1,
        "stage.MixNetBlock.kernels": 1,
    }
    spec, chosen = sample_network(space, FixedTrial(values))
    assert spec.to_yaml() == (
        "input: [46, 64]\n"
        "width: 1.0\n"
        "rows:\n"
        "- [1, Conv, [16, 3, 2, null, 1, HardSwish]]\n"
        "- [2, MixNetBlock, [[3, 5], 2, 24, 0, 2, ReLU]]\n"
        "- [1, GlobalAvgPool, []]\n"
        "- [1, Linear, [classes, null]]\n"
    )
    assert chosen["stage.MixNetBlock.kernels"] == (3, 5)
    assert chosen["stage.repeats"] == 2


def test_pass_leaves_the_row_out(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, SPACE), SIZES)
    trial = FixedTrial({"stem.Conv.c": 0, "stem.Conv.act": "ReLU", "stage.block": "pass"})
    blocks = [row.block for row in sample_network(space, trial)[0].rows]
    assert blocks == ["Conv", "GlobalAvgPool", "Linear"]


def test_packed_means_every_size_from_small_to_large(tmp_path: Path) -> None:
    name = write(tmp_path, SPACE.replace("[[46, 64]]", "packed"))
    assert read_space(name, [(64, 64), (46, 64)]).input == ((46, 64), (64, 64))


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_choice_of_a_shipped_space_makes_a_network(name: str) -> None:
    space = read_space(name, SIZES)
    longest = max(
        [len(space.input), len(space.width)]
        + [len(row.blocks) for row in space.rows]
        + [len(row.repeats) for row in space.rows]
        + [len(a.choices) for row in space.rows for args in row.blocks.values() for a in args]
    )
    seen = set()
    for turn in range(longest):
        spec = sample_network(space, Rotating(turn))[0]
        structure(spec, 9)
        seen |= {row.block for row in spec.rows}
    assert seen == {block for row in space.rows for block in row.blocks} - {"pass"}


class Rotating:
    """Suggests the k-th choice of every value."""

    def __init__(self, turn: int) -> None:
        self.turn = turn

    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> str:
        return choices[self.turn % len(choices)]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return low + self.turn % (high - low + 1)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("width: 1.0\n", "", "width is missing"),
        ("width: 1.0", "wdth: 1.0", "unknown key wdth; did you mean width?\n{0}: width is missing"),
        ("width: 1.0", "width: [1, -1]", "width is -1; it must be a number over 0 to 64"),
        ("width: 1.0", "width: []", "width has no choices"),
        ("repeats: [1, 2]", "repeats: []", "row 2 (stage): repeats must be whole numbers 1 to 256"),
        (
            "[[46, 64]]",
            "[46, 64]",
            "input is [46, 64]; it must be `packed` or a list of [height, width]",
        ),
        ("[[46, 64]]", "46", "input is 46; it must be `packed` or a list of [height, width]"),
        ("GlobalAvg", "GlobAvg", "row 3: unknown block GlobAvgPool; did you mean GlobalAvgPool?"),
        ("act: [ReLU", "activ: [ReLU", "stem, Conv: unknown argument activ; did you mean act?"),
        (
            "act: [ReLU, HardSwish]",
            "act: [ReLU, relu]",
            'stem, Conv: act is "relu"; it must be one of ReLU, ReLU6, HardSwish, HardSigmoid, '
            "SiLU, Swish, Sigmoid or null",
        ),
        ("c: [8, 16], ", "", "stem, Conv: c is missing"),
        ("c: [8, 16]", "c: []", "stem, Conv: c has no choices"),
        ("s: 2, act", "s: 9, act", "stem, Conv: s is 9; it must be a whole number 1 to 8 (pixels)"),
        ("{c: [16, 32], s: 2}", "{g: 2, s: 2}", "row 2 (stage): no block takes g"),
        ("repeats: [1, 2]", "repeats: 0", "row 2 (stage): repeats must be whole numbers 1 to 256"),
        ("name: pool", "name: stem", "two rows are called stem"),
        ("name: pool", "name: a.b", "row 3: name is a.b; letters, digits, - and _ go"),
        (
            "block: {GlobalAvgPool: }",
            "block: []",
            "row 3: block must be a mapping of blocks to their arguments",
        ),
    ],
)  # fmt: skip
def test_faults_name_their_row(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in SPACE
    name = write(tmp_path, SPACE.replace(old, new))
    with pytest.raises(ParamsError) as caught:
        read_space(name, SIZES)
    assert caught.value.problem == f"{name}: {fault.format(name)}"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    name = write(tmp_path, SPACE.replace("k: 3", "k: 0").replace("se: 0", "se: 2"))
    with pytest.raises(ParamsError) as caught:
        read_space(name, SIZES)
    assert len(caught.value.problem.splitlines()) == 2


def test_a_size_that_is_not_packed(tmp_path: Path) -> None:
    name = write(tmp_path, SPACE.replace("[[46, 64]]", "[[46, 64], [80, 80]]"))
    with pytest.raises(ParamsError) as caught:
        read_space(name, SIZES)
    assert str(caught.value) == (
        f"{name}: input [80, 80] is not packed\n"
        "  to fix: add [80, 80] to prepare.sizes in params.yaml"
    )


def test_an_unknown_space_lists_the_shipped_ones() -> None:
    with pytest.raises(ParamsError) as caught:
        read_space("smal", SIZES)
    assert str(caught.value) == (
        "search.space is smal: neither a file nor a shipped space\n"
        "  to fix: name a YAML file, or one of seed, small, tiny"
    )
