"""What an organizer hands out: numbers that are right, scripts of other platforms that run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.contest.conftest import model_bytes
from weighin.cli import commands
from weighin.contest.handout import IMAGES, write_handout, write_smoke
from weighin.contest.submissions import zipped
from weighin.errors import OutputError, ParamsError
from weighin.files import sha256_tree, write_bytes
from weighin.grading.grade import read_contest
from weighin.grading.score import FORMULAS, WASTE, Metrics, score


@pytest.fixture(scope="module")
def handout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handout") / "waste"
    write_handout(folder, WASTE, "Waste sorting", "no-such-image")
    return folder


def test_the_rules_are_read_back(handout: Path) -> None:
    assert read_contest(handout / "params.yaml") == WASTE


def test_the_worked_numbers_are_the_formulas(handout: Path) -> None:
    text = (handout / "RULES.md").read_text(encoding="utf-8")
    for f1, macs in ((0.4, 400_000), (0.84, 400_000)):
        value = score(WASTE, Metrics(f1, f1, macs, 1)).value
        assert f"| {f1} | {macs:,} |" in text
        assert f"| {value:.4f} |" in text
    assert "score = macs / 13,865,375 + f1 term" in text
    assert "1 - f1 / 0.83656 " in text
    assert "897,024 MACs" in text  # 3 * 3 * 8 * 16 * 24 * 32 + 16 * 24 * 32


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_is_written_out(tmp_path: Path, name: str) -> None:
    write_handout(tmp_path / "new", replace(WASTE, score=name), "Contest", "image")
    assert "    score = " in (tmp_path / "new/RULES.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (
            {"max_params": 500, "max_bytes": 20_000, "max_memory": 3000},
            ["max_params` | 500 parameters", "max_memory` | 3,000 bytes of activations"],
        ),
        ({"score": "accuracy", "max_macs": 5000}, ["max_macs` | 5,000 MACs"]),
        ({"score": "micronet", "max_bytes": 9}, ["max_bytes` | 9 bytes of file"]),
    ],
)
def test_limits_are_told_and_the_worked_models_keep_them(
    tmp_path: Path, rules: dict[str, Any], told: list[str]
) -> None:
    contest = replace(WASTE, **rules)
    write_handout(tmp_path / "new", contest, "Contest", "image")
    text = (tmp_path / "new/RULES.md").read_text(encoding="utf-8")
    assert "over one of these limits is out of the contest: 1,000 is added to its score" in text
    assert all(f"| `{line} |" in text for line in told)
    assert "over_limit 1000" not in text
    assert "over_budget 1000" not in text


def test_the_formula_of_micronet_is_that_of_quantized_models_too(tmp_path: Path) -> None:
    """What RULES.md writes is computed as it stands there, of an int8 and a float32 model."""
    contest = replace(WASTE, score="micronet")
    write_handout(tmp_path / "new", contest, "Contest", "image")
    text = (tmp_path / "new/RULES.md").read_text(encoding="utf-8")
    formula = text.partition("    score = ")[2].partition("and 1,000 more")[0]
    for width in (8, 32):
        bits = {"parameter_bits": 9000 * width, "multiply_bits": 400_000 * width}
        found = score(contest, Metrics(0.9, 0.9, 400_000, 9000, **bits)).value
        names = {"parameter bits": 9000 * width, "product bits": 400_000 * width, "macs": 400_000}
        written = formula.replace(",", "")
        for name, value in names.items():
            written = written.replace(name, str(value))
        assert eval(f"({written})") == pytest.approx(found, abs=1e-12)  # noqa: S307 - of our own page
    assert "parameters / 4,214,841 + macs / 13,865,375, and the models" in text


def test_no_limit_is_told_where_none_counts(handout: Path) -> None:
    text = (handout / "RULES.md").read_text(encoding="utf-8")
    assert "limit" not in text.partition("## What counts")[0]


def test_the_smoke_images_are_the_same_everywhere(handout: Path, tmp_path: Path) -> None:
    assert write_smoke(tmp_path / "again") == sorted(IMAGES)
    assert sha256_tree(tmp_path / "again") == sha256_tree(handout / "smoke")


def test_a_name_of_any_kind(tmp_path: Path) -> None:
    name = """ "a": {b} # c\\ 'd' """
    write_handout(tmp_path / "new", WASTE, name, "image")
    for path in ("codabench/competition.yaml", "evalai/challenge_config.yaml"):
        assert yaml.safe_load((tmp_path / "new" / path).read_text())["title"] == name


def codabench(
    handout: Path, secret: Path, root: Path, files: dict[str, bytes]
) -> tuple["subprocess.CompletedProcess[str]", Any]:
    """Run the scoring program as Codabench does, on an unpacked submission."""
    shutil.copytree(secret, root / "input/ref")
    for name, data in files.items():
        write_bytes(root / "input/res" / name, data)
    program = handout / "codabench/scoring_program"
    command = yaml.safe_load((program / "metadata.yaml").read_text())["command"].split()
    environment = {**os.environ, "CODABENCH_ROOT": str(root)}
    command[0], scores = sys.executable, root / "output/scores.json"
    done = subprocess.run(command, cwd=program, env=environment, capture_output=True, text=True)
    return done, json.loads(scores.read_text()) if scores.exists() else None


def evalai(handout: Path, secret: Path, place: Path) -> Callable[[Path], dict[str, Any]]:
    """Return EvalAI's call of the evaluation script, which is unpacked into a new folder."""
    with zipfile.ZipFile(handout / "evalai/evaluation_script.zip") as bundle:
        bundle.extractall(place / "script")
    with zipfile.ZipFile(place / "secret.zip", "w") as bundle:
        for path in secret.rglob("*"):
            bundle.write(path, path.relative_to(secret))
    spec = importlib.util.spec_from_file_location("evalai_main", place / "script/main.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    truth = str(place / "secret.zip")

    def evaluate(model: Path) -> dict[str, Any]:
        found = module.evaluate(truth, str(model), "final", submission_metadata={})
        return dict(found)

    return evaluate


def test_codabench_scores_a_submission(handout: Path, secret: Path, tmp_path: Path) -> None:
    competition = yaml.safe_load((handout / "codabench/competition.yaml").read_text())
    task, pages = competition["tasks"][0], [page["file"] for page in competition["pages"]]
    for part in (task["scoring_program"], task["reference_data"]):
        assert (handout / "codabench" / part).is_dir()
    for part in (competition["image"], competition["terms"], *pages):  # its unpacker needs these
        assert (handout / "codabench" / part).stat().st_size > 0
    phase = competition["phases"][0]
    assert phase["tasks"] == [task["index"]]
    assert phase["start"] < phase["end"]
    keys = {column["key"] for column in competition["leaderboards"][0]["columns"]}
    done, scores = codabench(handout, secret, tmp_path / "app", {"model.onnx": model_bytes()})
    assert done.returncode == 0
    assert scores.keys() == keys
    assert scores["f1"] == 1
    assert scores["macs"] == 204
    done, _ = codabench(handout, secret, tmp_path / "junk", {"model.onnx": b"junk"})
    assert done.returncode == 8
    assert "not an ONNX file" in done.stderr


def test_evalai_scores_a_submission(handout: Path, secret: Path, tmp_path: Path) -> None:
    place = handout / "evalai"
    assert [path.name for path in place.rglob("*.y*ml")] == ["challenge_config.yaml"]  # one alone
    configuration = yaml.safe_load((place / "challenge_config.yaml").read_text())
    phase = configuration["challenge_phases"][0]
    for key in ("description", "evaluation_details", "terms_and_conditions"):  # what it checks for
        assert (place / configuration[key]).suffix == ".html"
        assert (place / configuration[key]).is_file()
    assert (place / configuration["submission_guidelines"]).is_file()
    assert (place / phase["test_annotation_file"]).is_file()
    assert (place / phase["description"]).is_file()
    for part in (configuration, phase):
        assert part["start_date"] < part["end_date"]
    assert configuration["evaluation_script"] == "evaluation_script.zip"
    evaluate, model = evalai(handout, secret, tmp_path), tmp_path / "model.onnx"
    model.write_bytes(model_bytes())
    found = evaluate(model)
    split = configuration["dataset_splits"][0]["codename"]
    assert found["result"][0].keys() == {split}
    shown = configuration["leaderboard"][0]["schema"]["labels"]
    assert found["result"][0][split].keys() == set(shown)
    assert found["submission_result"]["f1"] == 1
    model.write_bytes(b"junk")
    with pytest.raises(ValueError, match="not an ONNX file"):
        evaluate(model)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["model.onnx"], ""),
        (["team/model.onnx", "team/metrics.json", "__MACOSX/team/._model.onnx"], ""),
        (["readme.md"], "holds 0 files model.onnx"),
        (["a/b/model.onnx"], "holds 0 files model.onnx"),
        (["model.onnx", "team/model.onnx"], "holds 2 files model.onnx"),
    ],
)
def test_a_wrapping_folder_on_every_platform(
    handout: Path, secret: Path, tmp_path: Path, files: list[str], problem: str
) -> None:
    held = dict.fromkeys(files, model_bytes())
    team, evaluate = tmp_path / "team.ZIP", evalai(handout, secret, tmp_path)
    team.write_bytes(zipped(held))
    done, scores = codabench(handout, secret, tmp_path / "app", held)
    if not problem:
        assert evaluate(team)["submission_result"]["f1"] == scores["f1"] == 1
        return
    with pytest.raises(
        ValueError, match=rf"^error: .*{problem}\n  to fix: hand in a model.onnx, or"
    ):
        evaluate(team)
    assert done.returncode == 1
    assert f"error: the submission {problem}\n  to fix: hand in a ZIP file" in done.stderr


def test_evalai_says_what_is_wrong_with_a_zip_file(
    handout: Path, secret: Path, tmp_path: Path
) -> None:
    (tmp_path / "team.zip").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(ValueError, match=r"^error: the ZIP file cannot be used: File is not a zip"):
        evalai(handout, secret, tmp_path)(tmp_path / "team.zip")


def test_a_score_of_ones_own_on_every_platform(secret: Path, tmp_path: Path) -> None:
    """The handout carries the Python file, here by the name of a platform's own script."""
    own = "def score(contest, metrics):\n    return metrics.macs + metrics.parameters / 100\n"
    (tmp_path / "score.py").write_text(own)
    rules = {"contest": {**asdict(WASTE), "score": "score.py"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(rules))
    command = ["contest", "init", f"{tmp_path}/new", "--contest", f"{tmp_path}/params.yaml"]
    refused = CliRunner().invoke(commands(), command)
    assert isinstance(refused.exception, ParamsError)
    assert refused.exception.fix == "pass --own-score if you trust that file"
    assert CliRunner().invoke(commands(), [*command, "--own-score"]).exit_code == 0
    handout, model = tmp_path / "new", tmp_path / "model.onnx"
    for path in handout.rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    given = read_contest(handout / "params.yaml", own_score=True)
    assert score(given, Metrics(1, 1, 204, 12)).value == 204.12
    _, scores = codabench(handout, secret, tmp_path / "app", {"model.onnx": model_bytes()})
    assert scores["score"] == 204.12
    model.write_bytes(model_bytes())
    found = evalai(handout, secret, tmp_path)(model)["submission_result"]
    assert found["score"] == 204.12


def test_nothing_is_overwritten(handout: Path) -> None:
    before = sha256_tree(handout)
    with pytest.raises(OutputError, match="is not empty"):
        write_handout(handout, WASTE, "Another", "image")
    assert sha256_tree(handout) == before


def test_preflight_names_the_folder_that_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "team/inner")
    inside = {"inner": "nothing", "team": "inner"}
    for path, name in ((".", "inner"), ("..", "team"), ("../../team/", "team")):
        found = CliRunner().invoke(commands(), ["preflight", path])
        assert found.exit_code == 8
        told = f"{name} holds no model.onnx; it holds {inside[name]}; to fix: "
        assert f"the grader takes the model: {told}" in found.stdout


def test_preflight_says_what_to_fix(tmp_path: Path) -> None:
    (tmp_path / "good.onnx").write_bytes(model_bytes())
    (tmp_path / "liar.onnx").write_bytes(model_bytes(metadata={"macs": "1"}))
    run = CliRunner().invoke
    good = run(commands(), ["preflight", str(tmp_path / "good.onnx"), "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["ready"] is True
    liar = run(commands(), ["preflight", str(tmp_path / "liar.onnx")])
    assert liar.exit_code == 8
    assert "FIX  the grader takes the model: its metadata claims 1 MACs" in liar.stdout
    assert "to fix: export it again without the claim" in liar.stdout
    (tmp_path / "team").mkdir()
    (tmp_path / "team/model.onnx").write_bytes(model_bytes())
    (tmp_path / "team/metrics.json").write_text('{"macs": 5}')
    (tmp_path / "team/submission.csv").write_text("filename,class\na.png,redd\nb.png,red\n")
    team = run(commands(), ["preflight", str(tmp_path / "team"), "--json"])
    assert team.exit_code == 8
    wrong = {c["name"]: c["said"] for c in json.loads(team.stdout)["checks"] if not c["ok"]}
    assert wrong == {
        "its MACs are those of the graph": "metrics.json says 5, the graph 204",
        "its labels are classes of the model": (
            "1 images of submission.csv have a class that the model does not know (redd; did you "
            "mean red?): they count as errors; to fix: write in submission.csv the classes of the "
            "model"
        ),
    }


def test_preflight_checks_the_limits_of_a_contest(tmp_path: Path) -> None:
    (tmp_path / "good.onnx").write_bytes(model_bytes())
    rules = {**asdict(WASTE), "score": "mine.py", "max_params": 12}  # the file is not run
    for most, told in ((12, None), (11, "12 parameters, 1 over contest.max_params, which is 11")):
        write_bytes(
            tmp_path / "p.yaml", json.dumps({"contest": {**rules, "max_params": most}}).encode()
        )
        command = ["preflight", f"{tmp_path}/good.onnx", "--contest", f"{tmp_path}/p.yaml"]
        found = CliRunner().invoke(commands(), command)
        line = "it keeps the limits of the contest"
        line = f"FIX  {line}: {told}; to fix: hand in a smaller model" if told else f"ok   {line}\n"
        assert line in found.stdout
        assert found.exit_code == (8 if told else 0)


@pytest.mark.parametrize("command", ["preflight", "leaderboard"])
@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("--memory", "0", "256<=x<="),
        ("--memory", "255", "256<=x<="),
        ("--seconds", "0", "1<=x<="),
        ("--seconds", "-1", "1<=x<="),
        ("--seconds", "inf", "1<=x<="),
    ],
)
def test_limits_within_which_no_grader_starts(
    tmp_path: Path, command: str, option: str, value: str, least: str
) -> None:
    found = CliRunner().invoke(commands(), [command, str(tmp_path), option, value])
    assert found.exit_code == 2
    assert f"Invalid value for '{option}'" in found.stderr
    assert least in found.stderr


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("filename,class\r\na.png,red\r\nb.png,blue\r\n", None),
        ('filename,class\n"a, b.png","red"\n', None),
        ("filename,class\n", "submission.csv holds no labels; to fix: name a CSV with"),
        ("", "submission.csv is empty; to fix: "),
        (
            "a.png,redd\nb.png,red\n",
            "have a class that the model does not know (redd; did you mean red?)",
        ),
        ("filename,class\na.png,red\na.png,blue\n", 'submission.csv lists a.png twice, as "red"'),
        (
            "filename,class\na.png,cat\n",
            "none of the classes of submission.csv is one of the model",
        ),
    ],
)
def test_preflight_reads_labels_as_the_grader_does(
    tmp_path: Path, table: str, said: str | None
) -> None:
    (tmp_path / "model.onnx").write_bytes(model_bytes())
    (tmp_path / "submission.csv").write_bytes(table.encode())
    found = CliRunner().invoke(commands(), ["preflight", str(tmp_path), "--json"])
    check = json.loads(found.stdout)["checks"][-1]
    assert check["name"] == "its labels are classes of the model"
    assert check["ok"] is (said is None)
    assert (said or "") in check["said"]
