"""provenance.json: hashes of all that the submission was made from and of all that was made.

Content only. No date, path of a machine or commit: whoever rebuilds gets the same file, and the
first line that differs says where two rebuilds parted. Knobs that only say how many hands do the
work (`workers`, `cluster`) are left out, for they change no byte.
"""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weighin.determinism import PINS
from weighin.files import canonical_json, sha256, sha256_file, sha256_tree
from weighin.params import Params
from weighin.report.inputs import Inputs

HANDS = ("workers", "cluster")
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


def provenance(inputs: Inputs, params: Params, made: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the facts; `made` are the report's own files, by name, not yet on disk."""
    values = _without_hands(dataclasses.asdict(params))
    outputs = {name: sha256(data) for name, data in made.items()}
    for path in (inputs.model, inputs.submission):
        outputs[path.name] = sha256_file(path)
    return {
        "data": _files([inputs.data_record, inputs.truth]),
        "code": {"weighin": sha256_tree(Path(__file__).parents[1])}
        | _files([inputs.pipeline, inputs.stages, inputs.lock]),
        "params": values,
        "params_sha256": sha256(canonical_json(values).encode()),
        "pins": dict(PINS),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "packages": {name: _version(name) for name in PACKAGES},
        "stages": {stage: _tree(folder) for stage, folder in inputs.folders().items()},
        "submission": outputs,
    }


def _without_hands(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_hands(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in HANDS
    }


def _version(name: str) -> str | None:
    """Return an installed version; `+cpu` goes, for torch's builds give the same bytes."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _files(paths: list[Path]) -> dict[str, str]:
    return {path.name: sha256_tree(path) for path in paths if path.exists()}


def _tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
