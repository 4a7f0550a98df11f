"""What a missing or garbled input says, to the letter, and that nothing is then written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from weighin.errors import DataError, ModelError, OutputError, WeighinError
from weighin.files import sha256
from weighin.report.inputs import test_copies as copies_of

Write = Callable[..., Path]
GARBLED = "{,}"
SEARCH = "work/search/trials.json"
HISTORY = "work/train/history.json"
LOGITS = "work/finetune/validation_logits.npy"
LAYERS = "work/decompose/layers.json"


def failure(report: Write, kind: type[WeighinError]) -> str:
    with pytest.raises(kind) as caught:
        report()
    assert not Path("submission/metrics.json").exists()
    assert not Path("submission/report.html").exists()
    assert not Path("submission/plots").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("work/prepare/classes.json", "prepare"),
        ("work/prepare/report.json", "prepare"),
        ("work/prepare/images.csv", "prepare"),
        ("submission/model.onnx", "quantize"),
        ("submission/submission.csv", "infer"),
    ],
)
def test_a_missing_file_names_the_stage_that_makes_it(
    project: Path, report: Write, name: str, stage: str
) -> None:
    Path(name).unlink()
    said = failure(report, DataError)
    assert said == f"{name} does not exist\n  to fix: run `dvc repro {stage}`"


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (SEARCH, GARBLED, "Expecting property name enclosed in double quotes: line 1 column 2"),
        (SEARCH, "", "Expecting value: line 1 column 1 (char 0)"),
        (SEARCH, '{"chosen": 0, "why": ""}', "'trials'"),
        (
            SEARCH,
            '{"trials": [{"number": 4, "state": "lost"}], "chosen": 4, "why": ""}',
            'the state of trial 4 is "lost"',
        ),
        (
            SEARCH,
            '{"trials": [], "chosen": 4, "why": ""}',
            "the chosen trial 4 is not among the trials",
        ),
        (HISTORY, GARBLED, "Invalid JSON: key must be a string at line 1 column 2"),
        (HISTORY, '[{"epoch": 1}]', "0.loss: Field required"),
        (HISTORY, '[{"epoch": 1, "loss": NaN}]', "0.loss: Input should be a finite number"),
        (HISTORY, '[{"epoch": 1, "loss": "low"}]', "0.loss: Input should be a valid number"),
        ("work/finetune/choice.json", "{}", "why: Field required"),
        (LAYERS, '[{"path": "a"}]', "0.shape: Field required"),
        ("work/tune/recipe.json", "[1]", "Input should be an object"),
        ("work/prepare/classes.json", '{"a": 1}', "Input should be a valid array"),
        ("work/prepare/report.json", '{"files": 3}', "images: Field required"),
        ("work/prepare/report.json", "[]", "Input should be an object"),
    ],
)
def test_a_garbled_file_says_what_is_wrong_with_it(
    project: Path, report: Write, name: str, text: str, fault: str
) -> None:
    Path(name).write_text(text, encoding="utf-8")
    stage = Path(name).parts[1]
    first, _, fix = failure(report, DataError).partition("\n")
    assert first.startswith(f"{name} is not what {stage} writes: {fault}")
    assert fix == f"  to fix: run `dvc repro --force {stage}`"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"split,row", b"part,row", "no 'split'"),
        (b",Metal,", b",Plastic,", "no 'Plastic'"),
        (b",Metal,", b",Pl\xe1stico,", "'utf-8' codec can't decode byte 0xe1 in position"),
    ],
)
def test_a_garbled_table_of_images(
    project: Path, report: Write, old: bytes, new: bytes, fault: str
) -> None:
    table = Path("work/prepare/images.csv")
    table.write_bytes(table.read_bytes().replace(old, new))
    said = failure(report, DataError)
    assert said.startswith(f"{table} is not what prepare writes: {fault}")
    assert said.endswith("\n  to fix: run `dvc repro --force prepare`")


FIX = "\n  to fix: run `dvc repro --force finetune`"


def test_logits_of_another_split(project: Path, report: Write) -> None:
    np.save(LOGITS, np.zeros((9, 3), np.float32))
    assert failure(report, DataError) == (
        f"{LOGITS} holds (9, 3) numbers, the data 10 validation images of 3 classes{FIX}"
    )


def test_logits_that_are_not_numbers(project: Path, report: Write) -> None:
    logits = np.zeros((10, 3), np.float32)
    logits[4, 1] = np.nan
    np.save(LOGITS, logits)
    assert failure(report, DataError) == f"{LOGITS} holds numbers that are not finite{FIX}"


def test_torn_logits(project: Path, report: Write) -> None:
    Path(LOGITS).write_bytes(Path(LOGITS).read_bytes()[:150])
    said = failure(report, DataError)
    assert said.startswith(f"{LOGITS} is not a NumPy file: ")
    assert said.endswith(FIX)


def test_logits_are_never_unpickled(project: Path, report: Write) -> None:
    np.save(LOGITS, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert failure(report, DataError) == (
        f"{LOGITS} is not a NumPy file: Object arrays cannot be loaded when allow_pickle=False{FIX}"
    )


def test_classes_of_the_truth_that_no_label_can_equal_are_told(
    project: Path, report: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a class was renamed: a test F1 of it would be wrong without a word."""
    note = "have a class that the model does not know (Old): they count as errors"
    report()
    page, card = Path("submission/report.html"), Path("submission/MODEL_CARD.md")
    before = capsys.readouterr().err
    assert all(note not in said for said in (before, page.read_text(), card.read_text()))
    truth = Path("data/test_truth.csv")
    header, first, *rest = truth.read_text().splitlines()
    truth.write_text("\n".join([header, f"{first.partition(',')[0]},Old", *rest]) + "\n")
    report()
    said = f"1 images of {truth} {note}"
    assert capsys.readouterr().err == f"test: {said}\n"
    assert f'<p class="warning">Test: {said}.</p>' in page.read_text()
    assert f"Test: 1 images of data/test\\_truth.csv {note}." in card.read_text()


def test_a_truth_that_the_submission_does_not_cover(project: Path, report: Write) -> None:
    with Path("data/test_truth.csv").open("a", encoding="utf-8") as file:
        file.write("u.png,Metal\nv.png,Metal\n")
    assert failure(report, DataError) == (
        "the truth names 2 files that submission/submission.csv lacks, such as u.png\n"
        "  to fix: run `dvc repro infer`, or fix the truth; "
        "filenames are paths below data/test"
    )


def test_a_model_of_other_classes(project: Path, report: Write) -> None:
    names = ["Glass", "Metal", "Paper"]
    Path("work/prepare/classes.json").write_text(json.dumps(names), encoding="utf-8")
    said = failure(report, DataError)
    assert said == (
        "submission/model.onnx and work/prepare/classes.json name different classes\n"
        "  to fix: run `dvc repro finetune`"
    )


def test_a_model_that_is_none(project: Path, report: Write) -> None:
    Path("submission/model.onnx").write_bytes(b"no model")
    assert failure(report, ModelError).startswith("submission/model.onnx: not an ONNX file\n")


def test_a_folder_that_cannot_be_written(project: Path, report: Write) -> None:
    Path("submission/metrics.json").mkdir()
    with pytest.raises(OutputError) as caught:
        report()
    assert str(caught.value) == (
        "cannot write submission/metrics.json: Is a directory\n  to fix: free some space or "
        "make its folder writable, then run the same command again"
    )


def test_an_error_leaves_the_last_report_as_it_was(project: Path, report: Write) -> None:
    folder = report()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    Path(SEARCH).write_text(GARBLED, encoding="utf-8")
    with pytest.raises(DataError):
        report()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_test_images_that_were_packed_byte_for_byte_are_found(tmp_path: Path) -> None:
    pack, test = tmp_path / "prepare", tmp_path / "test"
    for folder in (pack, test / "deep"):
        folder.mkdir(parents=True)
    (test / "deep/1.jpg").write_bytes(b"one")
    (test / "2.jpg").write_bytes(b"two")
    header = "split,row,class,name,group,sha256\n"
    (pack / "images.csv").write_text(f"{header}train,0,a,a/x.jpg,,{sha256(b'one')}\n")
    assert copies_of(pack, test) == (("deep/1.jpg", "a/x.jpg"),)
    assert copies_of(pack, tmp_path / "none") == ()
