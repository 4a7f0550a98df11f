"""What rows cost, and the example of each block that `weighin blocks` prints."""

import pytest
from ruamel.yaml import YAML

from weighin.network.blocks import BLOCKS
from weighin.network.build import check
from weighin.network.cost import BlockExample, block_examples, cost
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped

EXAMPLES = {example.name: example for example in block_examples()}


def test_every_block_has_an_example_whose_row_is_one() -> None:
    assert list(EXAMPLES) == list(BLOCKS)
    for example in EXAMPLES.values():
        repeats, block, args = YAML(typ="safe").load(example.row)
        assert example.summary and (repeats, block) == (1, example.name)
        check(NetworkSpec((32, 32), 1.0, (Row(1, block, tuple(args)),)), 9)


@pytest.mark.parametrize(
    ("name", "arguments", "row", "macs"),
    [
        # 3 x 3 from 16 to 24 channels on 16 x 16, and its norm at 2 a number
        ("Conv", "[c, k=1, s=1, p=null, g=1, act=ReLU]", "[1, Conv, [24, 3, 2]]", 3504 * 256),
        # 1 x 1 to 12, 3 x 3 to 24
        (
            "Bottleneck",
            "[c, shortcut=true, g=1, t=0.5, act=ReLU]",
            "[1, Bottleneck, [24]]",
            (16 * 12 + 12 * 24 * 9 + 2 * 36) * 1024,
        ),
        ("Linear", "[c, act=null]", "[1, Linear, [24]]", 16 * 24 + 24),
        ("MaxPool", "[k, stride=null, p=0]", "[1, MaxPool, [3]]", 16 * 1024),
        ("Flatten", "[]", "[1, Flatten, []]", 0),
    ],
)
def test_examples(name: str, arguments: str, row: str, macs: int) -> None:
    summary = EXAMPLES[name].summary
    assert EXAMPLES[name] == BlockExample(name, summary, arguments, row, macs)


def test_the_cost_is_that_of_the_exported_network() -> None:
    """A 3 x 3 from 3 to 8 channels at stride 4 on 24 x 32, then 8 x 9 classes; norms are biases."""
    rows = (Row(1, "Conv", (8, 3, 4)), Row(1, "GlobalAvgPool"), Row(1, "Linear", ("classes",)))
    found = cost(NetworkSpec((24, 32), 1.0, (*rows[:2], Row(1, "Flatten"), rows[2])), 9)
    assert found.macs == (27 * 8 + 8) * 48 + 8 * 9 + 9
    assert found.parameters == 27 * 8 + 8 + 8 * 9 + 9
    assert cost(read_spec(shipped("small")), 9).macs < 2_000_000
