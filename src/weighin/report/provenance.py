"""provenance.json: what the submission was made from, as an in-toto Statement of SLSA provenance.

Statement v1 (github.com/in-toto/attestation, spec/v1/statement.md) with the predicate
https://slsa.dev/provenance/v1. Where the fields are and what they mean here:

    subject                 submission.csv and model.onnx
    buildType               `dvc repro` of this pipeline
    externalParameters      params.yaml, less the parameters that change only the speed
    internalParameters      the environment that pins the instruction set; the GPU, driver and
                            libraries of each stage that a GPU computed; where the machine cannot
                            compute the promised bytes and went on all the same, why it cannot
    resolvedDependencies    the data, the truth, the locked packages, the files that params name,
                            the code, the params
    builder.version         Python and the packages that compute
    byproducts              every stage's files and the rest of the submission

Contents only: no date, machine, path or commit, so whoever rebuilds gets the same file, and the
first line that differs says where two rebuilds parted. What only one machine knows lies apart:
the report stage writes its processor and libraries into .weighin/build.json, which neither DVC nor
Git tracks. With the commit and the image it goes into the signed copy (signing.py).
"""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from weighin.data.versioning import recorded
from weighin.determinism import PINS
from weighin.files import canonical_json, read_json, sha256, sha256_file, write_json
from weighin.machine import installed, processor, unportable
from weighin.params import Params
from weighin.report.inputs import Inputs
from weighin.training.device import RECORD

Json = dict[str, Any]

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "weighin:dvc-repro/v1"
BUILDER = "weighin:anyone/v1"  # nobody in particular: every rebuild gives these bytes
SUBMISSION = "submission"
MACHINE_RECORD = Path(".weighin/build.json")
SPEED_ONLY = ("workers", "cluster")
PACKAGES = (
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pillow",
    "ruamel.yaml",
    "safetensors",
    "simplejpeg",
    "tensorly",
    "torch",
    "torchvision",
)


def provenance(inputs: Inputs, definition: Json, made: Mapping[str, bytes]) -> Json:
    """Return the statement; `made` are the report's own files, by name, not yet on disk."""
    own = [described(f"{SUBMISSION}/{name}", sha256=sha256(made[name])) for name in sorted(made)]
    return {
        "_type": STATEMENT,
        "subject": [_file(path, path.name) for path in (inputs.submission, inputs.model)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {
                "builder": {"id": BUILDER, "version": versions()},
                "byproducts": [*_stages(inputs), *own],
            },
        },
    }


def versions() -> dict[str, str]:
    """Return what is installed; `+cpu` goes, for torch's builds give the same bytes."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    here = {name: version for name in PACKAGES if (version := installed(name))}
    return {"python": python, **here}


def build_definition(inputs: Inputs, params: Params) -> Json:
    """Return what the submission is made from; it holds nothing of the report itself."""
    values = parameter_values(params)
    files, record = (inputs.truth, inputs.lock), inputs.data_record
    data = recorded(record.parent, record.stem)  # the hash that DVC knows the folder by
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {"command": "dvc repro", "params": values},
        "internalParameters": {"environment": dict(PINS)} | _gpus(inputs) | _unportable(),
        "resolvedDependencies": [
            *([] if data is None else [described(record.stem, dvcMd5=data)]),
            *(_file(path) for path in files if path.exists()),
            *_named_files(inputs.named_files),
            described("params", sha256=sha256(canonical_json(values).encode())),
            *([tree(inputs.stages, "stages")] if inputs.stages.exists() else []),
            tree(Path(__file__).parents[1], "src/weighin"),
        ],
    }


def record_machine(statement: Path) -> None:
    """Write which machine made a project's provenance.json; the record names it by its hash."""
    machine = {"processor": processor(), "libraries": libraries()} | _unportable()
    facts = {"machine": machine, "provenance": sha256_file(statement)}
    write_json(statement.absolute().parents[1] / MACHINE_RECORD, facts)


def recorded_machine(statement: Path) -> Json | None:
    """Return the machine that made a provenance.json; None where its record is of another."""
    try:
        facts = read_json(statement.absolute().parents[1] / MACHINE_RECORD)
        made = facts["provenance"] == sha256_file(statement)
        return dict(facts["machine"]) if made else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def libraries() -> dict[str, str]:
    """Return every installed package's version, local versions (`+cpu`) included."""
    found = importlib.metadata.distributions()
    return dict(sorted((package.name.lower(), package.version) for package in found))


def _gpus(inputs: Inputs) -> Json:
    """Return what computed each stage that a GPU computed."""
    records = {stage: folder / RECORD for stage, folder in inputs.folders().items()}
    found = {stage: read_json(record) for stage, record in records.items() if record.exists()}
    return {"gpu": found} if found else {}


def recorded_gpus(statement: Path) -> Json:
    """Return {stage: the GPU's facts} of a provenance.json; nothing where there is none."""
    try:
        definition = read_json(statement)["predicate"]["buildDefinition"]
        return dict(definition["internalParameters"].get("gpu", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _unportable() -> Json:
    """Return why the bytes hold for this kind of machine alone, where that was allowed."""
    reason = unportable()
    return {"unportable": reason} if reason else {}


def described(name: str, **digest: str) -> Json:
    """Return in-toto's ResourceDescriptor of a thing by its digest."""
    return {"name": name, "digest": digest}


def parameter_values(params: Params) -> Json:
    """Return the parameters that can change a byte."""
    return _without_hands(dataclasses.asdict(params))


def _without_hands(values: Json) -> Json:
    return {
        name: _without_hands(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in SPEED_ONLY
    }


def _named_files(folder: Path) -> Iterable[Json]:
    """Yield the files of one's own that parameters name, as the stage `inputs` recorded them."""
    for path in sorted(folder.glob("*.json")):
        for facts in read_json(path).values():
            if "sha256" in facts:
                yield described(facts["name"], sha256=facts["sha256"])


def _stages(inputs: Inputs) -> Iterable[Json]:
    for folder in inputs.folders().values():
        yield from (_file(path) for path in sorted(folder.rglob("*")) if path.is_file())


def _file(path: Path, name: str = "") -> Json:
    return described(name or path.as_posix(), sha256=sha256_file(path))


def tree(folder: Path, name: str) -> Json:
    """Return in-toto's dirHash1 of a folder without what Python leaves in it.

    `find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum` gives it too.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files if path.suffix != ".pyc")
    lines = (f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names))
    return described(name, dirHash1=sha256("".join(lines).encode()))
