"""provenance.json: the published form, the right hashes, nothing that a rebuild would change."""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from weighin.determinism import PINS
from weighin.errors import DataError
from weighin.files import write_json
from weighin.params import Params
from weighin.report.inputs import Inputs
from weighin.report.provenance import build_definition, provenance, recorded_gpus

Write = Callable[..., Path]
SCHEMA = json.loads(
    (Path(__file__).parent / "schemas/slsa-provenance-v1.json").read_text(encoding="utf-8")
)
PACKAGE = Path(__file__).parents[2] / "src/weighin"


def statement(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    return loaded


def digests(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found = {row["name"]: row["digest"] for row in rows}
    assert len(found) == len(rows)
    return found


def sha256(path: Path) -> dict[str, str]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def valid(facts: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(facts)


def test_it_is_of_the_published_form(written: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(statement(written), SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts.pop("subject"),
        lambda facts: facts.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda facts: facts["subject"][0].pop("digest"),
        lambda facts: facts["subject"][0]["digest"].update(sha256="ABC"),
        lambda facts: facts["predicate"]["buildDefinition"].pop("buildType"),
        lambda facts: facts["predicate"]["buildDefinition"].update(materials=[]),
        lambda facts: facts["predicate"]["runDetails"].pop("builder"),
        lambda facts: facts["predicate"]["runDetails"]["builder"].update(id="no uri"),
    ],
)
def test_the_form_can_be_missed(written: Path, spoil: Callable[[Any], Any]) -> None:
    """Negative control of the schema."""
    facts = statement(written)
    assert valid(facts)
    spoil(facts)
    assert not valid(facts)


def test_the_subjects_are_what_is_handed_in(written: Path) -> None:
    assert digests(statement(written)["subject"]) == {
        name: sha256(written / name) for name in ("submission.csv", "model.onnx")
    }


def test_the_byproducts_are_all_files_of_stages_and_report(written: Path) -> None:
    root = written.parent
    made = digests(statement(written)["predicate"]["runDetails"]["byproducts"])
    files = {path for folder in ("work", "submission") for path in (root / folder).rglob("*")}
    subjects = {written / name for name in ("submission.csv", "model.onnx", "provenance.json")}
    names = {path.relative_to(root).as_posix() for path in files - subjects if path.is_file()}
    assert made == {name: sha256(root / name) for name in names}


def test_what_it_was_made_from(project: Path, report: Write) -> None:
    Path("requirements.lock").write_text("torch==1\n", encoding="utf-8")
    Path("stages/__pycache__").mkdir(parents=True)
    Path("stages/a.py").write_text("1\n", encoding="utf-8")
    Path("stages/B.py").write_text("2\n", encoding="utf-8")
    Path("stages/__pycache__/a.pyc").write_bytes(b"\0")
    facts = statement(report())["predicate"]["buildDefinition"]
    found = digests(facts["resolvedDependencies"])
    names = ("data/test_truth.csv", "requirements.lock")
    assert list(found) == ["data", *names, "params", "stages", "src/weighin"]
    assert {name: found[name] for name in names} == {name: sha256(Path(name)) for name in names}
    assert found["data"] == {"dvcMd5": "0123456789abcdef.dir"}
    values = facts["externalParameters"]["params"]
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert found["params"] == {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert facts["internalParameters"] == {"environment": PINS}
    for folder, name in ((Path("stages"), "stages"), (PACKAGE, "src/weighin")):
        assert found[name] == {"dirHash1": shell_hash(folder)}


def shell_hash(folder: Path) -> str:
    """The one line that in-toto's definition of dirHash1 gives, with bytecode left out."""
    line = (
        "find . -type f ! -name '*.pyc' | cut -c3- | LC_ALL=C sort | xargs -r sha256sum "
        "| sha256sum | cut -f1 -d' '"
    )
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_gpu_of_a_stage_is_named(
    project: Path, inputs: Inputs, params: Params, tmp_path: Path
) -> None:
    facts = {"gpu": "NVIDIA A100", "driver": "535.104.05"}
    write_json(inputs.train / "device.json", facts)
    definition = build_definition(inputs, params)
    assert definition["internalParameters"] == {"environment": PINS, "gpu": {"train": facts}}
    write_json(tmp_path / "provenance.json", provenance(inputs, definition, {}))
    assert recorded_gpus(tmp_path / "provenance.json") == {"train": facts}
    assert recorded_gpus(tmp_path / "none.json") == {}


def test_how_many_hands_did_it_leaves_no_trace(inputs: Inputs, params: Params) -> None:
    def made_from(**changes: Any) -> Any:
        search = dataclasses.replace(params.search, **changes)
        return build_definition(inputs, dataclasses.replace(params, search=search))

    before = made_from()
    assert made_from(workers=7, cluster="tcp://host:8786") == before
    assert made_from(trials=params.search.trials + 1) != before


def test_a_changed_input_is_seen_by_name(project: Path, inputs: Inputs, params: Params) -> None:
    def made() -> list[Any]:
        facts = provenance(inputs, build_definition(inputs, params), {})
        rows: list[Any] = facts["predicate"]["runDetails"]["byproducts"]
        return rows

    before = made()
    Path("work/train/weights.safetensors").write_bytes(b"other weights")
    changed = [row["name"] for row in made() if row not in before]
    assert changed == ["work/train/weights.safetensors"]


def test_versions_are_those_of_the_packages_that_compute(written: Path) -> None:
    builder = statement(written)["predicate"]["runDetails"]["builder"]
    assert builder["id"] == "weighin:anyone/v1"
    assert builder["version"]["python"] == "3.11"
    assert builder["version"]["numpy"] == "2.4.6"
    assert "+" not in builder["version"]["torch"]


def test_no_date_is_in_it(written: Path) -> None:
    assert "metadata" not in statement(written)["predicate"]["runDetails"]


def test_a_data_record_that_records_nothing(project: Path, report: Write) -> None:
    Path("data.dvc").write_text("outs: []\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        report()
    assert str(caught.value) == (
        "data.dvc records no folder\n  to fix: run `git checkout data.dvc` for the one in Git, or "
        "`dvc add data` for what is here"
    )
    assert not Path("submission/metrics.json").exists()
