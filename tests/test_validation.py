"""Typed sections: what is read, how a fault is said, and the texts that are made from them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from weighin.errors import ParamsError
from weighin.files import flow, read_yaml, scalar
from weighin.validation import Section, commented, json_schema, parameter, parameters, read, span

Side = Annotated[int, parameter("", "", 1, 99)]
Few = Annotated[int, parameter("", "", 1, 8)]


@dataclass(frozen=True)
class Inner(Section):
    """Settings of the cooler."""

    rate: Annotated[float, parameter("how fast", "K/s", 1e-6, 10)]
    sizes: Annotated[tuple[tuple[Side, Side], ...], parameter("of pipes", "mm")]


@dataclass(frozen=True)
class Machine(Section):
    """A machine of which nothing else is known.

    A second paragraph.
    """

    count: Annotated[int, parameter("", "pieces", 1, 1000)]
    mode: Annotated[Literal["no", "slow", "fast"], parameter("a way to run")]
    name: Annotated[str | None, parameter("painted on it")]
    loud: Annotated[bool, parameter("")]
    hands: Annotated[Few | Literal["auto"], parameter("auto: as many as needed", "people")]
    inner: Inner
    limits: Annotated[dict[str, list[float]], parameter("name: [low, high]")]
    least: Annotated[float, parameter("of anything", low=0.5)]
    most: Annotated[float, parameter("of everything", high=2)]


def good() -> dict[str, Any]:
    return {
        "count": 3,
        "mode": "no",
        "name": None,
        "loud": True,
        "hands": "auto",
        "inner": {"rate": 0.5, "sizes": [[1, 2], [3, 4]]},
        "limits": {"a.b": [0.1, 2.0]},
        "least": 1,
        "most": -1e3,
    }


def with_value(name: str, value: Any) -> dict[str, Any]:
    values = good()
    *sections, last = name.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = value
    return values


def problem(values: Any) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        read(Machine, values, "m.yaml")
    assert caught.value.fix == "edit m.yaml, or pass -S name=value to `dvc exp run`"
    return caught.value.problem.split("\n")


def text_of(tmp_path: Path, text: str) -> Any:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    return read_yaml(tmp_path / "x.yaml")


def test_reading():
    expected = Machine(
        3, "no", None, True, "auto", Inner(0.5, ((1, 2), (3, 4))), {"a.b": [0.1, 2.0]}, 1.0, -1000.0
    )
    found = read(Machine, good(), "m.yaml")
    assert found == expected
    assert type(found.least) is float


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path):
    text = "a: 1e-06\nb: no\nc: 1e5\nd: yes\ne: 0o17\nf: on\ng: 1:30\nh: .5\ni: null\nj: 2.\n"
    values = (1e-06, "no", 100000.0, "yes", 15, "on", "1:30", 0.5, None, 2.0)
    assert text_of(tmp_path, text) == dict(zip("abcdefghij", values, strict=True))
    other = yaml.safe_load(text)  # negative control: YAML 1.1 takes them otherwise
    assert (other["a"], other["b"], other["g"]) == ("1e-06", False, 90)


SIZES = "a list, each a list of 2, each a whole number 1 to 99 (mm)"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("count", "banana", 'count is "banana"; it must be a whole number 1 to 1000 (pieces)'),
        ("count", "3", 'count is "3"; it must be a whole number 1 to 1000 (pieces)'),
        ("count", 0, "count is 0; it must be a whole number 1 to 1000 (pieces)"),
        ("count", 1001, "count is 1001; it must be a whole number 1 to 1000 (pieces)"),
        ("count", 3.0, "count is 3.0; it must be a whole number 1 to 1000 (pieces)"),
        ("count", True, "count is true; it must be a whole number 1 to 1000 (pieces)"),
        ("count", None, "count is empty; it must be a whole number 1 to 1000 (pieces)"),
        ("count", [3], "count is [3]; it must be a whole number 1 to 1000 (pieces)"),
        ("mode", "quick", 'mode is "quick"; it must be one of no, slow, fast'),
        ("mode", False, "mode is false; it must be one of no, slow, fast"),
        ("mode", None, "mode is empty; it must be one of no, slow, fast"),
        ("name", 5, "name is 5; it must be a text or null"),
        ("loud", "yes", 'loud is "yes"; it must be true or false'),
        ("loud", 1, "loud is 1; it must be true or false"),
        ("hands", "all", 'hands is "all"; it must be a whole number 1 to 8 or auto (people)'),
        ("hands", 9, "hands is 9; it must be a whole number 1 to 8 or auto (people)"),
        ("inner", 5, "inner must be a section of `name: value` lines"),
        ("inner", None, "inner must be a section of `name: value` lines"),
        ("inner.rate", "x", 'inner.rate is "x"; it must be a number 1e-06 to 10 (K/s)'),
        ("inner.rate", 1e-7, "inner.rate is 1e-07; it must be a number 1e-06 to 10 (K/s)"),
        ("inner.rate", float("nan"), "inner.rate is nan; it must be a number 1e-06 to 10 (K/s)"),
        ("inner.rate", float("inf"), "inner.rate is inf; it must be a number 1e-06 to 10 (K/s)"),
        ("inner.sizes", [[1, 100]], f"inner.sizes is [[1, 100]]; it must be {SIZES}"),
        ("inner.sizes", [[1, 2, 3]], f"inner.sizes is [[1, 2, 3]]; it must be {SIZES}"),
        ("inner.sizes", [1, 2], f"inner.sizes is [1, 2]; it must be {SIZES}"),
        ("inner.sizes", "1x2", f'inner.sizes is "1x2"; it must be {SIZES}'),
        ("limits", 5, "limits is 5; it must be a section of `name: value` lines"),
        ("least", 0, "least is 0; it must be a number 0.5 or more"),
        ("most", 2.5, "most is 2.5; it must be a number 2 or less"),
        ("least", -(10**400), f"least is -1{'0' * 400}; it must be a number 0.5 or more"),
        ("most", 10**400, f"most is 1{'0' * 400}; it must be a number 2 or less"),
        ("moed", 1, "unknown key moed; did you mean mode?"),
        ("inner.raet", 1, "unknown key inner.raet; did you mean inner.rate?"),
        ("inner.xyz", 1, "unknown key inner.xyz; known: rate, sizes"),
    ],
)
def test_one_fault(name, value, fault):
    assert problem(with_value(name, value)) == [f"m.yaml: {fault}"]


def test_every_fault_at_once():
    values = with_value("inner", {"rate": 99, "siezs": []})
    values |= {"loud": "x", "coutn": 3}
    del values["count"]
    assert problem(values) == [
        "m.yaml: count is missing",
        'm.yaml: loud is "x"; it must be true or false',
        "m.yaml: inner.rate is 99; it must be a number 1e-06 to 10 (K/s)",
        "m.yaml: inner.sizes is missing",
        "m.yaml: unknown key inner.siezs; did you mean inner.sizes?",
        "m.yaml: unknown key coutn; did you mean count?",
    ]


@pytest.mark.parametrize("values", [None, [], "text", 5])
def test_no_section_at_all(values):
    assert problem(values) == ["m.yaml: the file must be a section of `name: value` lines"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1,", "expected the node content, but found '<stream end>' at line 1"),
        ("a: 1\na: 2", 'found duplicate key "a"'),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!int ''", "string index out of range"),
        ("a: !!bool x", "'x'"),
        (f"a: {'9' * 5000}", "Exceeds the limit"),
        ("[" * 500, "maximum recursion depth exceeded"),
        ("--- 1\n--- 2", "expected a single document"),
    ],
)
def test_what_is_not_yaml(tmp_path, text, words):
    with pytest.raises(ParamsError) as caught:
        text_of(tmp_path, text)
    path = tmp_path / "x.yaml"
    assert caught.value.problem.startswith(f"{path} is not YAML: ")
    assert words in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.fix == f"edit {path}"


@pytest.mark.parametrize("last", ["*m", "&y [*y]"])
def test_aliases_that_stand_for_very_much_are_refused(tmp_path, last):
    path = tmp_path / "params.yaml"
    lines = ["a: &a [1, 1]"]
    for name, before in zip("bcdefghijklm", "abcdefghijkl", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 6)}]")
    path.write_text("\n".join([*lines, f"y: {last}\n"]))
    with pytest.raises(ParamsError, match=r"aliases stand for over 1,000,000 values") as caught:
        read_yaml(path)
    assert caught.value.fix == f"edit {path}"
    path.write_text("a: &a [1, 1]\nb: [*a, *a]\n")
    assert read_yaml(path) == {"a": [1, 1], "b": [[1, 1], [1, 1]]}


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ParamsError, match=r"is not text in UTF-8\n  to fix: save .* as UTF-8"):
        read_yaml(tmp_path / "x.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ParamsError) as caught:
        read_yaml(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'none.yaml'} does not exist\n"
        "  to fix: run this in the project's folder, or name an existing file"
    )
    with pytest.raises(ParamsError) as caught:
        read_yaml(tmp_path)
    assert caught.value.problem == f"cannot read {tmp_path}: Is a directory"


def test_knobs_by_dotted_name():
    found = parameters(Machine)
    assert list(found) == [
        *("count", "mode", "name", "loud", "hands", "inner.rate", "inner.sizes", "limits"),
        *("least", "most"),
    ]
    assert found["inner.rate"] == {
        "description": "how fast",
        "type": "number",
        "unit": "K/s",
        "minimum": 1e-6,
        "maximum": 10,
    }


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1, "0 to 1"),
        (0.02, 0.99999, "0.02 to 0.99999"),
        (1, 10**6, "1 to 1000000"),
        (-1, 2**31 - 1, "-1 to 2147483647"),
        (1e-8, 10**12, "1e-08 to 1e12"),
        (1, 123_456_789, "1 to 123456789"),
        (1, 1e300, "1 to 1e300"),
    ],
)
def test_a_range_is_said_exactly(low, high, words):
    assert span(TypeAdapter(Annotated[float, parameter("", "", low, high)]).json_schema()) == words
    assert [float(bound) for bound in words.split(" to ")] == [low, high]


TEXT = """\
count: 3     # pieces, 1 to 1000
mode: "no"   # no | slow | fast: a way to run
name: null   # painted on it
loud: true
hands: auto  # people, 1 to 8: auto: as many as needed

# Settings of the cooler.
inner:
  rate: 0.5                # K/s, 1e-06 to 10: how fast
  sizes: [[1, 2], [3, 4]]  # mm, 1 to 99: of pipes

limits:        # name: [low, high]
  a.b: [0.1, 2.0]
least: 1.0     # 0.5 or more: of anything
most: -1000.0  # 2 or less: of everything
"""


def test_commented_text(tmp_path):
    machine = read(Machine, good(), "m.yaml")
    text = commented(Machine, asdict(machine))
    assert text == TEXT
    assert read(Machine, text_of(tmp_path, text), "m.yaml") == machine
    assert read(Machine, yaml.safe_load(text), "m.yaml") == machine


def test_commented_text_of_empty_and_long_values(tmp_path):
    values = with_value("limits", {}) | {"name": "a name that is too long to move the others aside"}
    values["inner"]["sizes"] = []
    text = commented(Machine, values)
    assert text.splitlines()[2:4] == [
        'name: "a name that is too long to move the others aside"  # painted on it',
        "loud: true",
    ]
    assert "limits: {}     # name: [low, high]\n" in text
    assert "  sizes: []  # mm, 1 to 99: of pipes\n" in text
    assert text_of(tmp_path, text) == values


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
leaves = st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"]))
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(nested | st.dictionaries(keys, nested, max_size=4))
def test_any_value_reads_back_by_both_versions_of_yaml(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(f"x: {flow(value)}\n", encoding="utf-8")
    for found in (read_yaml(path)["x"], yaml.safe_load(path.read_text(encoding="utf-8"))["x"]):
        assert found == value
        assert repr(found) == repr(value)  # 1 is not 1.0, and 0.0 not -0.0


@pytest.mark.parametrize("word", ["no", "Yes", "ON", "off", "y", "null", "True", "~", "1e5", "0x1"])
def test_words_that_a_reader_takes_for_something_else_are_quoted(word):
    assert scalar(word) == f'"{word}"'


def test_json_schema():
    schema = json_schema(Machine)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema["title"], schema["additionalProperties"]) == ("Machine", False)
    assert schema["description"].startswith("A machine of which nothing else is known.")
    assert schema["required"] == list(schema["properties"]) == list(good())
    parts = schema["properties"]
    assert parts["count"] == {"type": "integer", "minimum": 1, "maximum": 1000, "unit": "pieces"}
    assert parts["mode"]["enum"] == ["no", "slow", "fast"]
    assert parts["name"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert parts["loud"] == {"type": "boolean"}
    assert parts["hands"]["anyOf"] == [
        {"type": "integer", "minimum": 1, "maximum": 8},
        {"const": "auto", "type": "string"},
    ]
    assert parts["most"] == {"type": "number", "maximum": 2, "description": "of everything"}
    assert parts["inner"] == {"$ref": "#/$defs/Inner"}
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert json.loads(json.dumps(schema)) == schema
    jsonschema.Draft202012Validator.check_schema(schema)


CASES = [
    ("count", [1, 1000, 0, 1001, "3", True, None, 1.5]),
    ("mode", ["no", "fast", "quick", None, 1, False]),
    ("name", [None, "x", 1, []]),
    ("loud", [True, False, 0, "no", None]),
    ("hands", ["auto", 1, 8, 0, 9, "all", None, 1.5]),
    ("inner", [None, {}, [], 5]),
    ("inner.rate", [1e-6, 10, 1e-7, 10.5, "1", True, None]),
    ("inner.sizes", [[], [[1, 99]], [[1]], [[1, 2, 3]], [1], [[1, 0]], [["1", 2]], None, {}]),
    ("limits", [{}, {"a": [1.5]}, None, [], "x"]),
    ("inner.other", [1]),
    ("other", [1, None]),
]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, many in CASES for v in many])
def test_the_json_schema_accepts_what_reading_accepts(name, value):
    values = with_value(name, value)
    try:
        read(Machine, values, "m.yaml")
        readable = True
    except ParamsError:
        readable = False
    assert jsonschema.Draft202012Validator(json_schema(Machine)).is_valid(values) == readable


@pytest.mark.parametrize("name", list(good()))
def test_the_json_schema_misses_what_reading_misses(name):
    values = good()
    del values[name]
    assert problem(values) == [f"m.yaml: {name} is missing"]
    assert not jsonschema.Draft202012Validator(json_schema(Machine)).is_valid(values)
