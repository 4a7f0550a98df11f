"""A stage that is switched off leaves nothing behind, and the report then leaves it out."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from strict_html import read_page

from weighin.files import canonical_json, write_json
from weighin.params import Params

Write = Callable[..., Path]
WHOLE = [
    "summary",
    "data",
    "search",
    "training",
    "compression",
    "mistakes",
    "robustness",
    "provenance",
    "rebuild",
]


def sections(folder: Path) -> list[str]:
    page = read_page((folder / "report.html").read_text(encoding="utf-8"))
    links = [tag.attributes["href"][1:] for tag in page.named("a")]
    found = [tag.attributes["aria-labelledby"] for tag in page.named("section")]
    assert [link for link in links if link in found] == found
    return found


def figures(folder: Path) -> set[str]:
    return {path.name for path in (folder / "plots").iterdir()}


def without(*stages: str) -> None:
    for stage in stages:
        shutil.rmtree(f"work/{stage}")


def test_everything_on(written: Path) -> None:
    assert sections(written) == WHOLE


@pytest.mark.parametrize(
    ("stages", "gone", "figures_gone"),
    [
        (["search"], [], {"search.csv", "search.svg"}),
        (["search", "tune"], ["search"], {"search.csv", "search.svg", "tune.csv"}),
        (["decompose"], [], {"layers.csv", "layers.svg"}),
        (["train"], [], {"train.csv", "train-validation.csv", "train.svg"}),
    ],
)
def test_its_section_and_figures_go(
    project: Path,
    written: Path,
    report: Write,
    stages: list[str],
    gone: list[str],
    figures_gone: set[str],
) -> None:
    without(*stages)
    folder = report()
    assert sections(folder) == [name for name in WHOLE if name not in gone]
    assert figures(written) - figures(folder) == figures_gone
    assert figures(folder) < figures(written)


def test_figures_of_a_stage_that_is_now_off_are_removed(project: Path, report: Write) -> None:
    Path("submission/plots").mkdir()
    Path("submission/plots/search.svg").write_text("old", encoding="utf-8")
    without("search")
    assert "search.svg" not in figures(report())


def test_a_factorization_that_changed_nothing_draws_nothing(project: Path, report: Write) -> None:
    layers = json.loads(Path("work/decompose/layers.json").read_text(encoding="utf-8"))
    write_json(Path("work/decompose/layers.json"), layers[1:])
    folder = report()
    assert "<p>No layer was factorized.</p>" in (folder / "report.html").read_text(encoding="utf-8")
    assert "layers.svg" not in figures(folder)


@pytest.mark.parametrize(
    ("there", "rows"), [([], "- &lt;row&gt;"), (["decompose"], "- &lt;cut&gt;")]
)
def test_the_rows_are_those_of_the_last_stage_that_ran(
    project: Path, report: Write, there: list[str], rows: str
) -> None:
    without(*({"decompose", "finetune"} - {*there}))
    assert rows in (report() / "report.html").read_text(encoding="utf-8")


def test_finetuning_off_keeps_the_answers(project: Path, report: Write) -> None:
    """The stage then still exports and answers; it has no history."""
    Path("work/finetune/history.json").write_text("[]\n", encoding="utf-8")
    folder = report()
    assert sections(folder) == WHOLE
    assert not {name for name in figures(folder) if name.startswith("finetune")}


def test_without_validation_only_the_test_folder_is_told(project: Path, report: Write) -> None:
    Path("work/finetune/validation_logits.npy").unlink()
    found = json.loads((report() / "metrics.json").read_text(encoding="utf-8"))
    assert found["test_f1"] == 0.777778
    assert not {"f1", "score", "calibration_error"} & found.keys()


def test_with_no_truth_at_all_the_work_is_still_counted(project: Path, report: Write) -> None:
    Path("work/finetune/validation_logits.npy").unlink()
    Path("data/test_truth.csv").unlink()
    folder = report()
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    size = Path("submission/model.onnx").stat().st_size
    wanted = {"macs": 204, "parameters": 12, "peak_memory": 780, "size": size}
    assert text == canonical_json(wanted)
    gone = {"mistakes", "robustness"}
    assert sections(folder) == [name for name in WHOLE if name not in gone]
    said = "No F1 is known: there are neither validation logits nor a truth for the test folder."
    assert said in (folder / "report.html").read_text(encoding="utf-8")
    assert said in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_everything_optional_off(project: Path, report: Write) -> None:
    without("search", "tune", "train", "decompose", "finetune")
    Path("data/test_truth.csv").unlink()
    Path("data.dvc").unlink()
    shutil.rmtree("work/prepare/pictures")
    folder = report()
    assert sections(folder) == ["summary", "data", "provenance", "rebuild"]
    assert figures(folder) == {"classes.csv", "classes.svg"}


def test_a_page_without_photographs(project: Path, report: Write, params: Params) -> None:
    shown = dataclasses.replace(params.report, mistakes=0, sheets=False)
    folder = report(dataclasses.replace(params, report=shown))
    assert sections(folder) == WHOLE
    assert read_page((folder / "report.html").read_text(encoding="utf-8")).named("img") == []


def test_pictures_that_are_gone_or_broken_leave_a_gap_not_an_error(
    project: Path, report: Write
) -> None:
    for path in Path("data/train").rglob("06 *"):
        path.write_bytes(b"torn")
    for path in Path("data/train").rglob("03 *"):
        path.unlink()
    page = read_page((report() / "report.html").read_text(encoding="utf-8"))
    blanks = [tag.text for tag in page.named("div") if tag.attributes.get("class") == "blank"]
    assert blanks == ["no picture", "no picture"]


def test_training_on_all_data_says_that_the_figures_are_of_seen_images(
    project: Path, report: Write, params: Params
) -> None:
    said = "say nothing about unseen ones"
    folder = report()
    assert said not in (folder / "report.html").read_text(encoding="utf-8")
    train = dataclasses.replace(params.train, all_data=True)
    folder = report(dataclasses.replace(params, train=train))
    assert said in (folder / "report.html").read_text(encoding="utf-8")
    assert said in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
