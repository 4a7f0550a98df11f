import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from weighin.errors import NetworkError
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped

GOOD = {"input": [46, 64], "width": 0.5, "rows": [[1, "Linear", ["classes"]]]}


def problem(values):
    with pytest.raises(NetworkError) as error:
        NetworkSpec.from_dict(values, "net.yaml")
    return error.value.problem


def test_canonical_text():
    rows = (
        Row(1, "Conv", (16, 3, 2, None, 1, "ReLU")),
        Row(4, "MixNetBlock", ((3, 5), 2.5, 24, 1, 1)),
        Row(1, "Bottleneck", (8, True)),
    )
    text = NetworkSpec((46, 64), 1.0, rows).to_yaml()
    assert text == (
        "input: [46, 64]\nwidth: 1.0\nrows:\n"
        "- [1, Conv, [16, 3, 2, null, 1, ReLU]]\n"
        "- [4, MixNetBlock, [[3, 5], 2.5, 24, 1, 1]]\n"
        "- [1, Bottleneck, [8, true]]\n"
    )


@pytest.mark.parametrize("width", [1.0, 0.1, 1e-06, 2.5])
def test_text_reads_back(tmp_path, width):
    spec = NetworkSpec((46, 64), width, (Row(2, "X", ((3, 5), 1e-07, None, False, "ReLU6", -1)),))
    (tmp_path / "net.yaml").write_text(spec.to_yaml())
    assert read_spec(tmp_path / "net.yaml") == spec
    assert NetworkSpec.from_dict(YAML(typ="safe", pure=True).load(spec.to_yaml())) == spec
    assert NetworkSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("name", ["mobilenetv3", "seed", "small"])
def test_shipped_rows_are_canonical_but_for_comments(name):
    lines = shipped(name).read_text().splitlines()
    bare = [line.split("#")[0].rstrip() for line in lines if not line.startswith("#")]
    assert "\n".join(bare) + "\n" == read_spec(shipped(name)).to_yaml()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 1}, "net.yaml: unknown key widht; did you mean width?"),
        ({"input": [46]}, "net.yaml: input is [46]; it must be [height, width], 1 to 4096"),
        ({"input": [0, 8]}, "net.yaml: input is [0, 8]; it must be [height, width], 1 to 4096"),
        ({"width": 0}, "net.yaml: width is 0; it must be a number over 0 to 64"),
        ({"width": float("nan")}, "net.yaml: width is nan; it must be a number over 0 to 64"),
        ({"width": True}, "net.yaml: width is True; it must be a number over 0 to 64"),
        ({"rows": []}, "net.yaml: rows must be a list of 1 to 1024 rows"),
        (
            {"rows": [[1, "Conv", [1]], [1, "Conv"]]},
            "net.yaml: row 2 is [1, 'Conv']; it must be [repeats, Block, [arguments]]",
        ),
        (
            {"rows": [[0, "Conv", [1]]]},
            "net.yaml: row 1 repeats 0 times; it must be a whole number 1 to 256",
        ),
        ({"rows": [[1, 7, [1]]]}, "net.yaml: row 1 has 7 where the name of a block goes"),
        (
            {"rows": [[1, "Conv", 16]]},
            "net.yaml: row 1 (Conv) has the arguments 16; they must be a list",
        ),
        (
            {"rows": [[1, "Conv", [{"c": 1}]]]},
            "net.yaml: row 1 (Conv) has the argument {'c': 1}; numbers, names, null and lists go",
        ),
        (
            {"rows": [[1, "Conv", [float("inf")]]]},
            "net.yaml: row 1 (Conv) has the argument inf; numbers, names, null and lists go",
        ),
    ],
)
def test_faults(change, message):
    assert problem(GOOD | change) == message


def test_every_fault_at_once():
    assert problem({"width": -1, "rows": [[0, "Conv", []]]}).splitlines() == [
        "net.yaml: input is missing",
        "net.yaml: width is -1; it must be a number over 0 to 64",
        "net.yaml: row 1 repeats 0 times; it must be a whole number 1 to 256",
    ]
    assert problem([1]) == "net.yaml: must be a mapping of input, width, rows"


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(NetworkError, match=r"no\.yaml does not exist"):
        read_spec(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("rows: [")
    with pytest.raises(NetworkError, match=r"bad\.yaml is not YAML"):
        read_spec(tmp_path / "bad.yaml")


def test_reading_rows_needs_no_torch():
    code = "import sys, weighin.network.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
