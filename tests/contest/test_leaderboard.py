"""Thirty submissions, twelve of them hostile: each has its line, and stops nobody else."""

import csv
import io
import json
import os
import shutil
import stat
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper

from tests.contest.conftest import COUNT, model_bytes
from weighin.cli import commands
from weighin.contest import grading
from weighin.contest.grading import Costs, Ended, Grader, Outcome, grade_submission
from weighin.contest.leaderboard import Options, leaderboard, ranked
from weighin.contest.pages import lines_of
from weighin.contest.ranking import is_public
from weighin.contest.submissions import Submission, zipped
from weighin.errors import DataError, OutputError, ParamsError
from weighin.files import read_json
from weighin.grading.limits import Limits
from weighin.grading.score import WASTE, confusion

HONEST, HOSTILE = 18, 12
FACTS: dict[str, Any] = {
    "model": {**dict.fromkeys(grading.COUNTED, 1), "classes": ["blue", "red"]},
    "speed": {"images_per_second": 1.0},
    "margin": {"smallest": None},
    "unreadable": {},
}


def hostile(folder: Path) -> dict[str, str]:
    """Write twelve submissions that must not get a rank; return {team: what is said of it}."""
    plain = model_bytes()

    def written(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    written("junk.onnx", b"this is no model")
    written("empty.onnx", b"")
    written("truncated.onnx", plain[:60])
    written("junk.zip", b"PK\x03\x04 but no archive")
    written("slip.zip", _archive({"../../model.onnx": plain}))
    written("nothing.zip", _archive({"README.md": b"the model is in the mail"}))
    entry = zipfile.ZipInfo("model.onnx")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    written("linked.zip", _archive({entry: b"/etc/passwd"}))
    (folder / "link.onnx").symlink_to("/etc/passwd")
    written("liar.onnx", model_bytes(metadata={"macs": "1"}))
    written(
        "foreign.onnx",
        model_bytes(metadata={"classes": json.dumps(["cat", "dog", "emu"]), "fallback": "cat"}),
    )
    unknown = [helper.make_node("Det", ["images"], ["logits"], name="strange")]
    written("strange.onnx", model_bytes(nodes=unknown))
    mixing = [helper.make_node("Softmax", ["images"], ["x"], name="mixer", axis=0)]
    written("mixing.onnx", model_bytes(before=mixing))
    return {
        "junk.onnx": "not an ONNX file",
        "empty": "not an ONNX file",
        "truncated": "not an ONNX file",
        "junk.zip": "not a sound ZIP file",
        "slip": "holds no model.onnx",
        "nothing": "holds no model.onnx",
        "linked": "is a link",
        "link": "is a link",
        "liar": "claims 1 MACs",
        "foreign": "none of the classes",
        "strange": "Det",
        "mixing": "mixer",
    }


def _archive(files: dict[Any, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return out.getvalue()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entries")
    for number in range(HONEST):
        data = model_bytes(bias=number * 0.08, extra=number % 3)
        if number % 3 == 0:
            (folder / f"team{number:02}.onnx").write_bytes(data)
        elif number % 3 == 1:
            (folder / f"team{number:02}").mkdir()
            (folder / f"team{number:02}/model.onnx").write_bytes(data)
        else:
            (folder / f"team{number:02}.zip").write_bytes(zipped({"model.onnx": data}))
    return folder


@pytest.fixture(scope="module")
def options(secret: Path) -> Options:
    grader = Grader(secret / "test", Limits(60))
    return Options(grader, secret / "truth.csv", jobs=2, resamples=200)


@pytest.fixture(scope="module")
def board(entries: Path, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hostile(entries)
    out = tmp_path_factory.mktemp("board")
    leaderboard(entries, out, options)
    return out


def lines(board: Path) -> dict[str, Any]:
    return {line["team"]: line for line in read_json(board / "leaderboard.json")["submissions"]}


def test_each_submission_has_a_line_and_the_hostile_ones_a_reason(
    board: Path, tmp_path: Path
) -> None:
    found, reasons = lines(board), hostile(tmp_path)
    assert len(found) == HONEST + HOSTILE
    assert len(reasons) == HOSTILE
    for team, reason in reasons.items():
        assert found[team]["private"] is found[team]["public"] is None
        assert reason in found[team]["said"], team
        assert "\n" not in found[team]["said"]
        assert found[team]["state"] != "graded"
    assert all(found[f"team{n:02}"]["state"] == "graded" for n in range(HONEST))


def test_the_board_is_the_one_computed_by_hand(board: Path, secret: Path) -> None:
    """F1 and score of each part from the pixels, as the models are defined."""
    with (secret / "truth.csv").open(newline="") as file:
        truth = {row["filename"]: row["class"] for row in csv.DictReader(file)}
    private = [name for name in sorted(truth) if not is_public(name, 0.5, 0)]
    assert 0 < len(private) < COUNT
    scores = {}
    for number in range(HONEST):
        line = lines(board)[f"team{number:02}"]
        labels = []
        for name in private:
            level = 2 * (30 + 2 * int(name[:3])) / 255  # of the one color, black being 0
            labels.append(truth[name] if level >= number * 0.08 else "red")
        f1 = confusion([truth[name] for name in private], labels).f1
        assert line["private"]["f1"] == pytest.approx(f1, abs=1e-9)
        scores[line["team"]] = line["private"]["score"]
        # 8 x 8 x 3 of pooling, 9 + 3 of the head, 3 x 3 x 64 a convolution
        assert line["model"]["macs"] == 192 + 12 + 576 * (number % 3)
    order = [line for line in lines(board) if line in scores]
    assert order == sorted(scores, key=lambda team: (scores[team], team))


def test_what_was_graded_is_not_graded_again(
    board: Path,
    entries: Path,
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kill it and run it again: here no grader answers any more, and the board is the same."""
    before = (board / "leaderboard.json").read_bytes()
    again = tmp_path / "board"
    shutil.copytree(board / "graded", again / "graded")

    def none(*_: object) -> Any:
        raise AssertionError("it graded again")

    monkeypatch.setattr(grading, "bounded", none)
    leaderboard(entries, again, options)
    assert (again / "leaderboard.json").read_bytes() == before
    other = next((again / "graded").iterdir())
    other.unlink()
    with pytest.raises(AssertionError, match="graded again"):
        leaderboard(entries, again, options)


@pytest.mark.parametrize(
    "words",
    [
        "Original error was: /lib/numpy/core.so: failed to map segment from shared object",
        "OpenBLAS error: Memory allocation still failed after 10 retries, giving up.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "OSError: [Errno 12] Cannot allocate memory: '/lib/numpy/_core'",
        "SystemError: error return without exception set",
    ],
)
def test_a_grader_that_dies_while_it_imports_for_want_of_memory(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The libraries say so each in its own way, with paths of the machine."""
    monkeypatch.setattr(grading, "bounded", lambda *_: Ended(1, "", f"Traceback\n{words}\n"))
    (tmp_path / "a.onnx").write_bytes(model_bytes())
    grader = Grader(secret / "test", Limits(60, 300 * 2**20))
    found = grade_submission(Submission("a", tmp_path / "a.onnx"), grader, tmp_path / "graded")
    assert (found.state, found.said, found.fix) == (
        "too much memory",
        "the grader does not start within 300 MB",
        "raise --memory, or free memory of the machine",
    )


@pytest.mark.parametrize("megabytes", [1, 20])
def test_limits_within_which_a_grader_really_does_not_start(
    secret: Path, tmp_path: Path, megabytes: int
) -> None:
    (tmp_path / "a.onnx").write_bytes(model_bytes())
    grader = Grader(secret / "test", Limits(60, megabytes * 2**20))
    found = grade_submission(Submission("a", tmp_path / "a.onnx"), grader, tmp_path / "graded")
    assert found.state == "too much memory"
    assert f"{megabytes} MB" in found.said
    assert "/" not in found.said


def test_a_damaged_result_is_graded_again(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(model_bytes())
    one, grader = Submission("a", tmp_path / "a.onnx"), Grader(secret / "test", Limits(60))
    found = grade_submission(one, grader, tmp_path / "graded")
    assert found.is_graded
    (kept,) = (tmp_path / "graded").iterdir()
    whole = kept.read_bytes()
    values = json.loads(whole)
    other = [{}, [], 5, {"state": "graded"}, {**values, "costs": {}}, {**values, "labels": [1]}]
    other += [{"state": "refused", "said": 5}, {**values, "state": "refused"}]
    for damaged in (b"", whole[:90], b"\xff", *(json.dumps(each).encode() for each in other)):
        kept.write_bytes(damaged)
        again = grade_submission(one, grader, tmp_path / "graded")
        assert again.labels == found.labels, damaged
        assert json.loads(kept.read_bytes()).keys() == values.keys(), damaged


def test_a_score_of_ones_own_is_run_where_that_is_allowed(secret: Path, tmp_path: Path) -> None:
    own = "def score(contest, metrics):\n    return metrics.macs / 100\n"
    (tmp_path / "mine.py").write_text(own)
    rules = {"contest": {**asdict(WASTE), "score": "mine.py"}}
    (tmp_path / "params.yaml").write_text(json.dumps(rules))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.onnx").write_bytes(model_bytes())
    command = ["leaderboard", f"{tmp_path}/in", f"{tmp_path}/out", "--test", f"{secret}/test"]
    command += ["--truth", f"{secret}/truth.csv", "--contest", f"{tmp_path}/params.yaml"]
    command += ["--resamples", "100"]
    refused = CliRunner().invoke(commands(), command)
    assert isinstance(refused.exception, ParamsError)
    assert refused.exception.fix == "pass --own-score if you trust that file"
    found = CliRunner().invoke(commands(), [*command, "--own-score"])
    assert "   1  a: score 2.0400 (2.0400 to 2.0400)" in found.stdout
    assert read_json(tmp_path / "out/leaderboard.json")["contest"]["score"] == "mine.py"
    page = (tmp_path / "out/leaderboard.html").read_text(encoding="utf-8")
    assert "Ranked by the formula <code>mine.py</code>" in page


def test_the_same_answers_are_named(board: Path) -> None:
    found = lines(board)
    assert "team01" in found["team00"]["same_as"]  # a convolution more, and no other label
    assert "team00" in found["team01"]["same_as"]


def test_a_page_tells_no_label_of_a_test_image(board: Path) -> None:
    pages = sorted((board / "submissions").iterdir())
    assert len(pages) == HONEST + HOSTILE
    for page in (*pages, board / "leaderboard.html"):
        text = page.read_text(encoding="utf-8")
        assert ".png" not in text
        assert "http" not in text.replace("http://www.w3.org", "")


def test_names_of_teams_are_text(secret: Path, options: Options, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / 'in/<img src=x onerror="alert(1)">.onnx').write_bytes(model_bytes())
    leaderboard(tmp_path / "in", tmp_path / "out", options)
    text = (tmp_path / "out/leaderboard.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "&lt;img src=x onerror=" in text
    assert (tmp_path / "out/submissions/img-src-x-onerror-alert-1.html").is_file()


def test_names_that_no_file_can_hold_and_formulas(
    secret: Path, options: Options, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in (os.fsdecode(b"\xff.onnx"), "=1+1.onnx"):
        (tmp_path / "in" / name).write_bytes(model_bytes())
    leaderboard(tmp_path / "in", tmp_path / "out", options)
    assert lines(tmp_path / "out").keys() == {"\\udcff", "=1+1"}
    with (tmp_path / "out/leaderboard.csv").open(newline="") as file:
        assert {row["team"] for row in csv.DictReader(file)} == {"\\udcff", "'=1+1"}


@pytest.mark.parametrize("place", ["in", "in/board", "test/board"])
def test_a_board_among_what_it_reads(
    secret: Path, options: Options, tmp_path: Path, place: str
) -> None:
    shutil.copytree(secret / "test", tmp_path / "test")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.onnx").write_bytes(model_bytes())
    own = replace(options, grader=Grader(tmp_path / "test", Limits(60)))
    with pytest.raises(OutputError, match="lies in the folder of the"):
        leaderboard(tmp_path / "in", tmp_path / place, own)
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.onnx"]
    assert not (tmp_path / "test/board").exists()


def test_a_truth_that_a_submission_could_read(secret: Path, tmp_path: Path) -> None:
    shutil.copytree(secret, tmp_path / "secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.onnx").write_bytes(model_bytes())
    own = Options(Grader(tmp_path / "secret", Limits(60)), tmp_path / "secret/truth.csv")
    with pytest.raises(DataError, match="lies among the test images"):
        leaderboard(tmp_path / "in", tmp_path / "out", own)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "output",
    [
        "",
        "[" * 100_000,
        '{"model": 5}',
        "NaN",
        json.dumps({**FACTS, "model": {**FACTS["model"], "macs": -1}}),
        json.dumps({**FACTS, "model": {**FACTS["model"], "macs": 10**400}}),
        json.dumps({**FACTS, "model": {**FACTS["model"], "classes": ["\ud800", "a"]}}),
        json.dumps({**FACTS, "speed": {"images_per_second": float("inf")}}),
    ],
)
def test_what_a_grader_did_not_write_is_not_believed(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A model that took over the grader writes what it likes; docker/test_board.py does it."""

    def written(command: Any, seconds: float, out: Path, *_: object) -> Ended:
        (out / "grade.json").write_text(output)
        (out / "submission.csv").write_text("filename,class\n000.png,blue\n")
        return Ended(0, "", "")

    monkeypatch.setattr(grading, "bounded", written)
    (tmp_path / "a.onnx").write_bytes(model_bytes())
    grader = Grader(secret / "test", Limits(60))
    found = grade_submission(Submission("a", tmp_path / "a.onnx"), grader, tmp_path / "graded")
    assert (found.state, found.is_graded) == ("crashed", False)
    assert not (tmp_path / "graded").exists()
    output = json.dumps(FACTS)  # the control
    found = grade_submission(Submission("a", tmp_path / "a.onnx"), grader, tmp_path / "graded")
    assert found.costs == Costs(1, 1, 1.0, None, 0, 1, 1, 1)


def test_a_truth_with_gaps_misspellings_and_two_spellings(
    secret: Path, options: Options, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.onnx").write_bytes(model_bytes())
    rows = (secret / "truth.csv").read_text().splitlines()
    rows[1], rows[2], rows[3] = "000.png,NaN", "001.png,", "002.png,redd"
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(rows) + "\n")
    board = leaderboard(tmp_path / "in", tmp_path / "out", replace(options, truth=truth))
    assert board.private_images + board.public_images == COUNT - 2
    assert "truth: 2 rows left out: no class" in board.notes
    assert "truth: no submission knows the class redd" in board.notes
    page = (tmp_path / "out/leaderboard.html").read_text(encoding="utf-8")
    assert all(note in page for note in board.notes)
    truth.write_text("\n".join([*rows[:3], "002.png,Red", *rows[4:]]) + "\n")
    with pytest.raises(DataError, match=r"writes a class in two ways: Red and red"):
        leaderboard(tmp_path / "in", tmp_path / "out", replace(options, truth=truth))


def test_a_class_that_one_model_writes_in_another_way(
    secret: Path, options: Options, tmp_path: Path
) -> None:
    """Where others know the class, the truth is not at fault: the note is the team's."""
    (tmp_path / "in").mkdir()
    other = {"classes": json.dumps(["BLEU", "green", "red"]), "fallback": "red"}
    (tmp_path / "in/other.onnx").write_bytes(model_bytes(metadata=other))
    (tmp_path / "in/plain.onnx").write_bytes(model_bytes())
    board = leaderboard(tmp_path / "in", tmp_path / "out", options)
    note = (
        "the model does not know the class blue (did you mean it by BLEU?): "
        "its images count as errors"
    )
    assert board.notes == ()
    assert {line.team: line.outcome.notes for line in board.lines} == {
        "plain": (),
        "other": (note,),
    }
    assert lines_of(board)[-1].endswith(f"; {note}")
    for page, said in (("public.html", note), ("submissions/other.html", f"T{note[1:]}.")):
        assert said in (tmp_path / "out" / page).read_text(encoding="utf-8")


def test_a_truth_of_other_images_stops_before_anything_is_graded(
    secret: Path, options: Options, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("filename,class\nother.png,red\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.onnx").write_bytes(model_bytes())
    with pytest.raises(DataError, match=r"other\.png"):
        leaderboard(tmp_path / "in", tmp_path / "out", replace(options, truth=truth))
    assert not (tmp_path / "out").exists()


def test_both_boards_and_the_shake_up() -> None:
    """A team that is first on the public part only has two ranks, and the private one decides."""
    names = [f"{n}.png" for n in range(200)]
    truth = {name: ("a", "b")[int(name[:-4]) % 2] for name in names}
    rng = np.random.default_rng(0)
    public = {name for name in names if is_public(name, 0.5, 0)}

    def answers(team: str, on_public: float, on_private: float) -> Outcome:
        labels = {}
        for name in names:
            right = rng.random() < (on_public if name in public else on_private)
            labels[name] = truth[name] if right else "ab".replace(truth[name], "")
        costs = Costs(1000, 10, 1.0, None, 0)
        return Outcome(team, "graded", sha256=team, costs=costs, labels=labels)

    options = Options(Grader(Path(), Limits(1)), Path("truth.csv"), resamples=200)
    outcomes = [answers("fitted", 0.99, 0.6), answers("honest", 0.85, 0.85)]
    found = ranked(outcomes, truth, options)
    assert [line.team for line in found.lines] == ["honest", "fitted"]
    assert [line.public.rank for line in found.lines if line.public] == [2, 1]
    assert [line.private.rank for line in found.lines if line.private] == [1, 2]
    assert found.public_images + found.private_images == 200
    # figures on a terminal are those of the part that it names
    head, first, _ = lines_of(found)
    assert head == f"ranked on the private part, {found.private_images} images"
    private = found.lines[0].private
    assert private
    assert first.startswith(f"   1  honest: score {private.score:.4f} (")
    assert lines_of(found.public)[0] == f"ranked on the public part, {found.public_images} images"
