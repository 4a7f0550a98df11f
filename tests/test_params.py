"""The shipped params.yaml, and what a user reads after a slip in it."""

import copy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from weighin.errors import ParamsError
from weighin.files import canonical_json, read_yaml
from weighin.params import RENAMED, Params, Recipe, load, renamed_in
from weighin.validation import commented, json_schema, parameters, read

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "params.yaml"


def changed(tmp_path: Path, line: str, other: str) -> Path:
    """Return a copy of params.yaml, the first line that starts with `line` being another."""
    lines = SHIPPED.read_text().splitlines()
    places = [n for n, text in enumerate(lines) if text.startswith(line)]
    lines[places[0]] = other
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    return tmp_path / "params.yaml"


def faults(path: Path) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load(path)
    assert caught.value.exit_code == 4
    assert caught.value.fix == f"edit {path}, or pass -S name=value to `dvc exp run`"
    return [line.removeprefix(f"{path}: ") for line in caught.value.problem.split("\n")]


@cache
def _shipped() -> Any:
    return read_yaml(SHIPPED)


def shipped_values() -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(_shipped())
    return values


def test_shipped_comments_are_those_of_the_knobs():
    text = SHIPPED.read_text(encoding="utf-8")
    header = text[: text.index("seed:")]
    assert all(line.startswith("#") or not line for line in header.splitlines())
    assert text == header + commented(Params, asdict(load(SHIPPED)))


def test_shipped_json_schema_is_the_parameters():
    fix = "write_json(Path('params.schema.json'), json_schema(Params)) writes it anew"
    text = (ROOT / "params.schema.json").read_text(encoding="utf-8")
    assert text == canonical_json(json_schema(Params)), fix
    jsonschema.Draft202012Validator(json_schema(Params)).validate(shipped_values())


@pytest.mark.parametrize(
    ("line", "other", "fault"),
    [
        (
            "  epochs:",
            "  epochs: banana",
            'search.epochs is "banana"; it must be a whole number 1 to 10000 (epochs)',
        ),
        (
            "  lr:",
            "  lr: 101",
            "recipe.lr is 101; it must be a number 1e-08 to 100",
        ),
        (
            "  lr:",
            "  lr: .nan",
            "recipe.lr is nan; it must be a number 1e-08 to 100",
        ),
        (
            "  lr:",
            "  lr:",
            "recipe.lr is empty; it must be a number 1e-08 to 100",
        ),
        (
            "  optimizer:",
            "  optimizer: adam",
            'recipe.optimizer is "adam"; it must be one of sgd, adamw',
        ),
        (
            "  sizes:",
            "  sizes: []",
            "prepare: sizes is empty; networks take one of them, such as [[64, 64]]",
        ),
        (
            "  sizes:",
            "  sizes: [[46, 64], [7, 64]]",
            "prepare.sizes is [[46, 64], [7, 64]]; it must be a list, each a list of 2, "
            "each a whole number 8 to 1024 (pixels)",
        ),
        (
            "  workers:",
            "  workers: some",
            'search.workers is "some"; it must be a whole number 1 to 1024 or auto (processes)',
        ),
        (
            "  turn_tall:",
            "  turn_tall: no",
            'prepare.turn_tall is "no"; it must be true or false',
        ),
        (
            "seed:",
            "seed: 2147483648",
            "seed is 2147483648; it must be a whole number 0 to 2147483647",
        ),
        (
            "contest:",
            "contset:",
            "unknown key contset; did you mean contest?",
        ),
    ],
)
def test_a_slip(tmp_path, line, other, fault):
    assert fault in faults(changed(tmp_path, line, other))


@pytest.mark.parametrize(
    ("space", "fault"),
    [
        ({"lrr": [0.1, 0.2]}, "tune.space: lrr is no number of a recipe; did you mean lr?"),
        ({"optimizer": [0, 1]}, "tune.space: optimizer is no number of a recipe"),
        ({"lr": 0.1}, "tune.space.lr is 0.1; it must be a list of 2, each a number"),
        ({"lr": [0.1]}, "tune.space.lr is [0.1]; it must be a list of 2, each a number"),
        ({"lr": [0.2, 0.1]}, "tune.space: lr is [0.2, 0.1]; low must be under high"),
        ({"lr": [0, 0.1]}, "tune.space: lr is [0.0, 0.1]; it must be a number 1e-08 to 100"),
        (
            {"augment.cutout": [0.0, 2.0]},
            "tune.space: augment.cutout is [0.0, 2.0]; "
            "it must be a number 0 to 1 (share of a side)",
        ),
        (
            {"augment.randaugment": [0, 1.5]},
            "tune.space: augment.randaugment is [0.0, 1.5]; "
            "it must be a whole number 0 to 4 (operations)",
        ),
    ],
)
def test_faults_of_the_tuning_space_name_the_parameter(space, fault):
    values = shipped_values()
    values["tune"]["space"] = space
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml")
    assert caught.value.problem.startswith(f"params.yaml: {fault}")


def test_every_fault_of_the_tuning_space_is_told_at_once():
    values = shipped_values()
    values["tune"]["space"] = {"lrr": [0, 1], "lr": [2, 1]}
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml")
    assert len(caught.value.problem.splitlines()) == 2


def test_a_renamed_parameter_says_its_new_name():
    values = shipped_values()
    values["train"]["epohcs"] = values["train"].pop("epochs")
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml", {"train.epohcs": "train.epochs"})
    assert caught.value.problem == "params.yaml: train.epohcs is now called train.epochs"


def test_a_removed_parameter_says_so_in_every_file_that_may_name_it():
    values = shipped_values()
    values["train"] |= {"teacher": 0.0, "teacher_epochs": 80}
    values["recipe"]["loss"]["distillation"] = 0.0
    names = ["recipe.loss.distillation", "train.teacher", "train.teacher_epochs"]
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml", RENAMED)
    assert caught.value.problem.split("\n") == [
        f"params.yaml: {name} was removed; delete its line" for name in names
    ]
    with pytest.raises(ParamsError) as caught:
        read(Recipe, values["recipe"], "recipe.json", renamed_in("recipe"))
    assert caught.value.problem == "recipe.json: loss.distillation was removed; delete its line"


def test_renamed_parameters_exist_under_their_new_names_alone():
    assert set(RENAMED.values()) <= {None, *parameters(Params)}
    assert not RENAMED.keys() & parameters(Params).keys()


def test_epochs_of_train():
    values = shipped_values()
    values["train"]["epochs"] = "banana"
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml")
    assert str(caught.value) == (
        'params.yaml: train.epochs is "banana"; it must be a whole number 0 to 100000 (epochs)\n'
        "  to fix: edit params.yaml, or pass -S name=value to `dvc exp run`; `weighin reset` "
        "brings the committed one back"
    )


def test_several_slips_are_told_at_once():
    values = shipped_values()
    values["train"]["epochs"], values["train"]["epohcs"] = -1, 5
    values["recipe"]["augment"]["flip"] = 1.5
    del values["report"]["bootstrap"], values["decompose"]
    with pytest.raises(ParamsError) as caught:
        read(Params, values, "params.yaml")
    assert caught.value.problem.split("\n") == [
        "params.yaml: recipe.augment.flip is 1.5; it must be a number 0 to 1 (chance)",
        "params.yaml: train.epochs is -1; it must be a whole number 0 to 100000 (epochs)",
        "params.yaml: unknown key train.epohcs; did you mean train.epochs?",
        "params.yaml: decompose is missing",
        "params.yaml: report.bootstrap is missing",
    ]


@pytest.mark.parametrize("text", ["1e-06", "1.0e-06", "0.000001"])
def test_a_small_number_as_dvc_writes_it(tmp_path, text):
    assert load(changed(tmp_path, "  lr:", f"  lr: {text}")).recipe.lr == 1e-06


def test_no_is_a_name(tmp_path):
    assert load(changed(tmp_path, "  network:", "  network: no")).search.network == "no"


def _beyond(schema: dict[str, Any]) -> tuple[list[float], bool]:
    """Return the numbers just outside of a parameter's range, and whether it is a list of pairs."""
    listed = schema.get("type") == "array"
    inner = schema["items"]["prefixItems"] if listed else schema.get("anyOf", [schema])
    ends = (("minimum", -1), ("maximum", 1))
    return [inner[0][end] + step for end, step in ends if end in inner[0]], listed


@pytest.mark.parametrize("name", list(parameters(Params)))
def test_every_bound_is_kept(name):
    beyond, listed = _beyond(parameters(Params)[name])
    wrong = [[[value, value]] if listed else value for value in beyond]
    for value in [*wrong, float("nan"), [{"b": "c"}]]:
        values = shipped_values()
        *sections, last = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
        with pytest.raises(ParamsError) as caught:
            read(Params, values, "params.yaml")
        assert caught.value.problem.startswith(f"params.yaml: {name} is ")


def test_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError) as caught:
        load()
    assert str(caught.value) == (
        "params.yaml does not exist\n"
        "  to fix: run this in the project's folder, or name an existing file"
    )


def test_a_file_without_device_and_precision_means_the_processor(tmp_path: Path):
    lines = SHIPPED.read_text().splitlines()
    old = [text for text in lines if not text.startswith(("  device:", "  precision:"))]
    (tmp_path / "params.yaml").write_text("\n".join(old))
    assert len(old) == len(lines) - 2
    assert load(tmp_path / "params.yaml") == load(SHIPPED)


def test_a_precision_of_gpus_needs_one(tmp_path: Path):
    path = changed(tmp_path, "  precision:", "  precision: bf16")
    assert faults(path) == [
        "recipe: precision is bf16, which device: cpu does not compute in; "
        "set precision to float32, or device to cuda"
    ]
    path.write_text(path.read_text().replace("device: cpu", "device: cuda"))
    assert load(path).recipe.precision == "bf16"


def test_what_neither_searches_nor_names_a_network_is_refused(tmp_path: Path):
    path = changed(tmp_path, "  enabled: true      # false takes", "  enabled: false")
    assert faults(path) == [
        "search: enabled is false and network is null; name a rows file: network: small"
    ]


def test_what_neither_trains_nor_takes_weights_is_refused(tmp_path: Path):
    path = changed(tmp_path, "  epochs: 160", "  epochs: 0")
    assert faults(path) == [
        "train: epochs is 0 and weights is null; set epochs, or name a safetensors file"
    ]
