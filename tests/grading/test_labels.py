"""The truth is read however it is written; F1 is not computed where it speaks of other classes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from weighin.errors import DataError
from weighin.grading.grade import compared, read_submission, read_truth

CLASSES = ("Glass", "Metal", "Paper")
NAMES = ("a.jpg", "b.jpg", "c.JPG", "d.jpg")
LABELS = dict(zip(NAMES, ("Glass", "Metal", "Metal", "Paper"), strict=True))
PLAIN = "filename,class\na.jpg,Glass\nb.jpg,Metal\nc.JPG,Paper\n"
PARTIAL = "truth: it leaves out 1 of the 4 files of the folder, which are not scored"


def write(folder: Path, text: str) -> Path:
    (folder / "truth.csv").write_text(text, encoding="utf-8")
    return folder / "truth.csv"


def f1(path: Path) -> float:
    return compared(LABELS, read_truth(path, NAMES, CLASSES, "the folder", "name it")).f1


def test_what_is_compared(tmp_path: Path) -> None:
    table = compared(LABELS, read_truth(write(tmp_path, PLAIN), NAMES, CLASSES, "", ""))
    assert table.classes == CLASSES
    assert table.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert table.f1 == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        (lambda text: text, 0),
        (lambda text: text.replace(",", ", ").replace("\n", " \n"), 0),
        (lambda text: text.replace(",", ";"), 0),
        (lambda text: text.replace("filename,class", "Filename,Class"), 0),
        (lambda text: text.replace("\n", ",Public\n").replace("class,Public", "class,Usage"), 0),
        (lambda text: text.replace("\n", "\r\n") + "\r\n", 0),
        (lambda text: "\n".join([text.splitlines()[0], *sorted(text.splitlines()[1:])[::-1]]), 0),
        (lambda text: text.upper(), 2),
        (lambda text: text.replace("Glass", "gla_ss").replace("gla_ss", " glass "), 1),
        (lambda text: text.replace(".JPG", ".jpg"), 1),
        (lambda text: text.replace(".jpg", "").replace(".JPG", ""), 1),
        (lambda text: text.replace("a.jpg", ".\\test\\a.jpg"), 1),
        (lambda text: text + "c.JPG,Paper\n", 1),
        (lambda text: text.partition("\n")[2], 2),
        (lambda text: text.replace("class", "label"), 1),
    ],
)
def test_a_truth_in_another_spelling_scores_the_same(
    tmp_path: Path, change: Callable[[str], str], notes: int
) -> None:
    path = write(tmp_path, change(PLAIN))
    truth = read_truth(path, NAMES, CLASSES, "the folder", "name it")
    plain = read_truth(write(tmp_path, PLAIN), NAMES, CLASSES, "the folder", "name it")
    assert truth.labels == plain.labels
    assert len(truth.notes) == notes + 1
    assert plain.notes == (PARTIAL,)


def test_a_running_number_is_no_file_name(tmp_path: Path) -> None:
    path = write(tmp_path, "id,code,label\n0,01,Glass\n1,02,Metal\n2,00,Metal\n")
    truth = read_truth(path, ("00.jpg", "01.jpg", "02.jpg"), CLASSES, "the folder", "name it")
    assert truth.labels == {"01.jpg": "Glass", "02.jpg": "Metal", "00.jpg": "Metal"}
    assert truth.notes[-1] == 'truth: file names from "code", classes from "label"'


def test_rows_that_a_solution_ignores_are_not_scored(tmp_path: Path) -> None:
    rows = ["filename,class,Usage", "a.jpg,Glass,Public", "b.jpg,Metal,Private"]
    path = write(tmp_path, "\n".join([*rows, "c.JPG,Paper,Ignored", "d.jpg,,Ignored"]))
    truth = read_truth(path, NAMES, CLASSES, "the folder", "name it")
    assert truth.labels == {"a.jpg": "Glass", "b.jpg": "Metal"}
    assert truth.notes[-1] == 'truth: 2 rows left out: its Usage is "Ignored"'


def test_another_spelling_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,class\nA.jpg,GLASS\nb,metal\n")
    assert read_truth(path, NAMES[:2], CLASSES, "", "").notes == (
        f'{path} writes classes in another way: read "GLASS" as "Glass", "metal" as "Metal"',
        "truth: 2 of 2 names found: 0 exactly, 1 by case, 1 by file suffix",
    )


@pytest.mark.parametrize("classes", [("0", "1"), ("Verre", "Metall")])
def test_other_classes_are_no_f1_but_both_lists(tmp_path: Path, classes: tuple[str, str]) -> None:
    rows = zip(NAMES, classes, strict=False)
    path = write(tmp_path, "filename,class\n" + "".join(f"{n},{c}\n" for n, c in rows))
    for read in (f1, lambda p: read_submission(p, CLASSES, NAMES)):
        with pytest.raises(DataError) as caught:
            read(path)
        assert f"has {', '.join(sorted(classes))}; the model has Glass, Metal, Paper" in str(
            caught.value
        )
        assert str(path) in caught.value.fix


def test_a_class_that_the_model_does_not_know_counts_as_errors_and_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "d.jpg,Battery\n")
    truth = read_truth(path, NAMES, CLASSES, "", "")
    assert truth.notes == (
        f"1 images of {path} have a class that the model does not know (Battery): "
        "they count as errors",
    )
    assert compared(LABELS, truth).f1 == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)


def test_two_classes_of_one_spelling_are_not_mixed_up(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,class\na.jpg,glass\nb.jpg,Glass\n")
    truth = read_truth(path, NAMES[:2], ("Glass", "glass"), "", "")
    assert (truth.labels, truth.notes) == ({"a.jpg": "glass", "b.jpg": "Glass"}, ())
    path = write(tmp_path, "filename,class\na.jpg,GLASS\n")
    with pytest.raises(DataError, match="none of the classes"):
        read_truth(path, NAMES, ("Glass", "glass"), "", "")


@pytest.mark.parametrize(
    ("rows", "problem", "fix"),
    [
        ("a.jpg,Glass\na.jpg,Metal\n", 'lists a.jpg twice, as "Glass" and as "Metal"', "remove"),
        ("a.jpg,Glass\nx.jpg,Metal\n", "1 files that the folder lacks, such as x.jpg", "name it"),
        ("x.png,Glass\n", "such as x.png; the folder holds such as a.jpg", "name it"),
        ("1/c.jpg,Glass\n2/c.jpg,Metal\n", '"1/c.jpg" may mean c.JPG', "path of each file"),
        ("", "holds no labels", "filename,class"),
    ],
)
def test_errors(tmp_path: Path, rows: str, problem: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        f1(write(tmp_path, "filename,class\n" + rows))
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_a_submission_is_read_in_the_models_words(tmp_path: Path) -> None:
    path = write(tmp_path, "Id,Label\na.jpg,glass\nb.jpg,METAL\n")
    assert read_submission(path, CLASSES, NAMES) == (
        {"a.jpg": "Glass", "b.jpg": "Metal"},
        (
            f'{path} writes classes in another way: read "METAL" as "Metal", "glass" as "Glass"',
            'submission: file names from "Id", classes from "Label"',
        ),
    )


@pytest.mark.parametrize(
    ("header", "notes"),
    [
        ("filename,label,prediction", 'classes from "prediction", not from "label"'),
        ("filename,class,Predicted Class", 'classes from "Predicted Class", not from "class"'),
        ("filename,truth,answer", None),
        ("filename,pred_score,pred", 'classes from "pred"'),
    ],
)
def test_a_submission_is_read_for_its_predictions(
    tmp_path: Path, header: str, notes: str | None
) -> None:
    path = write(tmp_path, f"{header}\na.jpg,Glass,Metal\nb.jpg,Metal,Paper\nc.JPG,Glass,Paper\n")
    if notes is None:  # neither is surely the prediction, and the truth surely none
        with pytest.raises(DataError) as caught:
            read_submission(path, CLASSES, NAMES)
        assert caught.value.problem == (
            f"{path} has no column that is known to hold classes; it has filename, truth, answer"
        )
        assert caught.value.fix == f"call one filename and one class in {path}"
        return
    own = {"a.jpg": "Metal", "b.jpg": "Paper", "c.JPG": "Paper"}
    said = f'submission: file names from "filename", {notes}'
    assert read_submission(path, CLASSES, NAMES) == (own, (said,))
    truth = write(tmp_path, "filename,prediction,label\na.jpg,Glass,Metal\nb.jpg,Metal,Paper\n")
    assert read_truth(truth, own, CLASSES, "", "").labels == {"a.jpg": "Metal", "b.jpg": "Paper"}


@pytest.mark.parametrize(
    ("rows", "problem", "fix"),
    [
        ("a.jpg,Glass\nb.jpg,\n", "{path}, line 3 (b.jpg): no class", "give each file one class"),
        ("A.jpg,Glass\n,Metal\n", "{path}, line 3 (): no file name", "give each file one class"),
        (
            "a.jpg,Glass\nA.JPG,Metal\n",
            '{path} lists a.jpg twice, as "Glass" (a.jpg) and as "Metal" (A.JPG)',
            "remove the wrong row from",
        ),
        (
            "a.jpg,Glass\na.jpg,Metal\n",
            '{path} lists a.jpg twice, as "Glass" and as "Metal"',
            "remove the wrong row from",
        ),
    ],
)
def test_errors_of_a_submission(tmp_path: Path, rows: str, problem: str, fix: str) -> None:
    path = write(tmp_path, "filename,class\n" + rows)
    with pytest.raises(DataError) as caught:
        read_submission(path, CLASSES, NAMES)
    assert caught.value.problem == problem.format(path=path)
    assert caught.value.fix == f"{fix} {'in ' * fix.endswith('class')}{path}"


def test_what_a_submission_says_again_or_of_its_confidence(tmp_path: Path) -> None:
    rows = "a.jpg,Glass,0\nA.JPG,Glass,1\nb.jpg,Metal,0\nb.jpg,Metal,0\n"
    path = write(tmp_path, "filename,class,confidence\n" + rows)
    assert read_submission(path, CLASSES, NAMES) == (
        {"a.jpg": "Glass", "b.jpg": "Metal"},
        ("submission: 1 rows left out: listed twice",),
    )


def test_a_class_of_a_submission_that_the_model_does_not_know_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,class\na.jpg,Glass\nb.jpg,Weird\nc.jpg,Meatl\n")
    labels, notes = read_submission(path, CLASSES, NAMES)
    assert list(labels.values()) == ["Glass", "Weird", "Meatl"]
    assert notes == (
        f"2 images of {path} have a class that the model does not know "
        "(Meatl; did you mean Metal?, Weird): they count as errors",
    )


def test_class_numbers_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,class\na.jpg,0.0\nb.jpg,1.0\n")
    assert read_truth(path, NAMES[:2], ("0", "1"), "", "").labels == {"a.jpg": "0", "b.jpg": "1"}
    path = write(tmp_path, "filename,class\na.jpg,07\nb.jpg,-1\n")
    truth = read_truth(path, NAMES[:2], ("1", "7", "-1"), "", "")
    assert truth.labels == {"a.jpg": "7", "b.jpg": "-1"}
    assert truth.notes == (f'{path} writes classes in another way: read "07" as "7"',)
    for classes in (("1", "7"), ("0", "7")):  # -1 is not class 1
        notes = read_truth(path, NAMES[:2], classes, "", "").notes
        assert "1 images" in notes[1] and "(-1)" in notes[1]


@pytest.mark.parametrize("spelled", ["Glass\u200b", "\ufeffGlass", "\uff27lass", "Gla\u00adss"])
def test_what_is_not_seen_of_a_class_and_a_file_name(tmp_path: Path, spelled: str) -> None:
    path = write(tmp_path, f"filename,class\na\u200b.jpg,{spelled}\n\uff42.jpg,Metal\n")
    truth = read_truth(path, NAMES[:2], CLASSES, "", "")
    assert truth.labels == {"a.jpg": "Glass", "b.jpg": "Metal"}
    assert "read" in truth.notes[0] and "2 by percent-encoding, blanks or what" in truth.notes[1]
    assert read_submission(path, CLASSES, NAMES)[0]["a\u200b.jpg"] == "Glass"
