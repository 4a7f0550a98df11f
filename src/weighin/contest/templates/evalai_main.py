"""EvalAI's evaluation script: grades a model.onnx, or the one in a ZIP file.

The annotation file is a ZIP of the folder `test` with the secret images and of `truth.csv`.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).parent
MOST = 200_000_000  # bytes of a model
FIX = "hand in a model.onnx, or a ZIP file with one at its top or in its one folder"


def evaluate(
    test_annotation_file: str, user_submission_file: str, phase_codename: str, **kwargs: Any
) -> dict[str, Any]:
    """Return EvalAI's result: score, f1 and macs of the split `test`."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "model.onnx").write_bytes(_model(Path(user_submission_file)))
        with zipfile.ZipFile(test_annotation_file) as secret:  # the organizer's own
            secret.extractall(place)
        rules = json.loads((HERE / "contest.json").read_text())
        own = rules["score"].endswith(".py")  # a Python file beside this one
        rules["score"] = str(HERE / rules["score"]) if own else rules["score"]
        (place / "contest.yaml").write_text(json.dumps({"contest": rules}))
        command = [sys.executable, "-m", "weighin.grading", place / "model.onnx", place / "test"]
        command += [place / "out", "--truth", place / "truth.csv"]
        command += ["--contest", place / "contest.yaml", *["--own-score"] * own]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise ValueError(done.stderr.strip())
        facts = json.loads((place / "out/grade.json").read_text())
    found = {"score": facts["quality"]["score"]["value"], "f1": facts["quality"]["f1"]}
    found["macs"] = facts["model"]["macs"]
    return {"result": [{"test": found}], "submission_result": found}


def _model(path: Path) -> bytes:
    """Return the model in a file; that of a ZIP file may lie in one wrapping folder."""
    if path.suffix.lower() != ".zip":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as bundle:
            models = [each for each in bundle.infolist() if _is_model(each.filename)]
            if len(models) != 1:
                raise ValueError(f"it holds {len(models)} files model.onnx")
            if models[0].file_size > MOST:
                raise ValueError(f"its model.onnx has over {MOST:,} bytes")
            return bundle.read(models[0])
    except Exception as error:  # zipfile and the codecs below it raise many kinds
        raise ValueError(f"error: the ZIP file cannot be used: {error}\n  to fix: {FIX}") from None


def _is_model(entry: str) -> bool:
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    return parts[-1:] == ("model.onnx",) and len(parts) <= 2
