"""Codabench's scoring program: grades the model.onnx of a submission in the grader's image.

Codabench calls it with /app/input/ref (test/ and truth.csv), /app/input/res (the submission), and
reads /app/output/scores.json.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ.get("CODABENCH_ROOT", "/app"))
HERE = Path(__file__).parent
FIX = "hand in a ZIP file with one model.onnx, at its top or in its one folder"


def main() -> None:
    """Grade and write scores.json; a refused model ends with the grader's sentence."""
    reference, result, out = ROOT / "input/ref", ROOT / "input/res", ROOT / "output"
    out.mkdir(parents=True, exist_ok=True)
    contest = out / "contest.yaml"
    rules = json.loads((HERE / "contest.json").read_text())
    own = rules["score"].endswith(".py")  # a Python file beside this one
    rules["score"] = str(HERE / rules["score"]) if own else rules["score"]
    contest.write_text(json.dumps({"contest": rules}))
    models = [*result.glob("model.onnx"), *result.glob("*/model.onnx")]
    if len(models) != 1:
        sys.exit(f"error: the submission holds {len(models)} files model.onnx\n  to fix: {FIX}")
    command = [sys.executable, "-m", "weighin.grading", str(models[0])]
    command += [str(reference / "test"), str(out), "--truth", str(reference / "truth.csv")]
    command += ["--contest", str(contest), *["--own-score"] * own]
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)
    facts = json.loads((out / "grade.json").read_text())
    found = {"score": facts["quality"]["score"]["value"], "f1": facts["quality"]["f1"]}
    (out / "scores.json").write_text(json.dumps(found | {"macs": facts["model"]["macs"]}))


if __name__ == "__main__":
    main()
