"""report.html: valid, fetches nothing, runs nothing, and escapes other people's words."""

import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_project import CLASSES, HOSTILE
from PIL import Image
from strict_html import Page, read_page

from weighin.report.page import number_columns


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return (written / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return read_page(text)


def section(page: Page, anchor: str) -> str:
    (found,) = [t for t in page.named("section") if t.attributes["aria-labelledby"] == anchor]
    return found.text.strip()


def test_it_is_one_whole_document(text: str, page: Page) -> None:
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    assert text.endswith("</body>\n</html>\n")
    assert [tag.text for tag in page.named("title")] == ["Weigh-in: 3 classes, 204 MACs"]
    assert len(page.named("h1")) == len(page.named("main")) == 1


def test_headings_never_skip_a_level(page: Page) -> None:
    levels = [int(tag.name[1]) for tag in page.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_every_link_resolves(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    links = [tag.attributes["href"] for tag in page.named("a", "use")]
    assert "#summary" in links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    named = [t.attributes[k] for t in page.tags for k in t.attributes if k == "aria-labelledby"]
    assert set(named) <= set(ids)


def test_figures_use_their_own_clips_and_markers(page: Page) -> None:
    ids = set(page.ids())
    used = re.findall(
        r"url\(#([^)]+)\)", " ".join(" ".join(t.attributes.values()) for t in page.tags)
    )
    assert used
    assert set(used) <= ids


def test_nothing_is_fetched_or_run(text: str, page: Page) -> None:
    assert all(a.startswith(("#", "data:image/jpeg;base64,")) for a in page.addresses())
    names = {tag.name for tag in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "audio"}
    assert not [k for tag in page.tags for k in tag.attributes if k.startswith("on")]
    # a namespace is a name, and the only address with a host that a page may hold
    assert set(re.findall(r"\w+://[^\"'<>\s]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in next(tag.text for tag in page.named("style"))
    (policy,) = [t for t in page.named("meta") if "http-equiv" in t.attributes]
    assert policy.attributes == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }


def test_every_picture_is_one_and_says_what_it_shows(page: Page) -> None:
    pictures = page.named("img")
    assert len(pictures) == 4 + 2 + 6  # contact sheets and pairs, two mistakes, a corrupted image
    for tag in pictures:
        data = base64.b64decode(tag.attributes["src"].partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "JPEG"
        assert tag.attributes["alt"]
    for tag in page.named("svg"):
        assert tag.attributes["role"] == "img"
        assert tag.attributes["aria-label"]


def test_hostile_names_are_text(text: str, page: Page) -> None:
    """Class names, file names, layer paths, reasons and rows: as they are, in the reader's eye."""
    assert "<script" not in text
    assert "&#34;&gt;&lt;script&gt;alert(1)" in text
    heads = [tag.text for tag in page.named("th")]
    for name in CLASSES:
        assert name in heads
    assert "The lowest <score> of the front." in section(page, "search")
    assert "- <end>" in section(page, "training")
    assert "stage<1>.conv" in section(page, "compression")
    assert f"true {CLASSES[1]}labelled Metal95.0 % sure" in section(page, "mistakes")
    titles = [tag.attributes["title"] for tag in page.named("figure") if "title" in tag.attributes]
    assert titles == [f"{CLASSES[1]}/06 <i>.png", f"{HOSTILE}/03 <i>.png"]


def test_the_mistake_is_the_picture_that_was_mistaken(page: Page) -> None:
    """Image 6 is 30 pixels wide and green; the surer mistake comes first."""
    (first, second) = page.named("img")[4:6]
    sizes = []
    for tag in (first, second):
        data = base64.b64decode(tag.attributes["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            sizes.append(image.size)
    assert sizes == [(30, 16), (27, 16)]


def test_the_commands_are_those_that_rebuild_and_grade(page: Page) -> None:
    lines = [tag.text for tag in page.named("pre")][-2:]
    grade = "python -m weighin.grading submission/model.onnx data/test graded --contest params.yaml"
    assert lines == ["dvc repro", f"{grade}\n{grade} --truth data/test_truth.csv"]


def test_the_strict_reader_is_strict() -> None:
    """Negative control: what these tests rely on does find faults."""
    for wrong in ("<p><b></p></b>", "<p>", "<i a=1 a=2></i>", "<br/>", "<input disabled>"):
        with pytest.raises(AssertionError):
            read_page(wrong)


def rows(page: Page, caption: str) -> list[list[str]]:
    """The cells of the table with a caption, its header first."""
    (start,) = [
        place
        for place, tag in enumerate(page.tags)
        if tag.name == "caption" and tag.text == caption
    ]
    found: list[list[str]] = []
    for tag in page.tags[start + 1 :]:
        if tag.name == "tr":
            found.append([])
        elif tag.name in ("th", "td"):
            found[-1].append(tag.text)
        elif tag.name not in ("thead", "tbody"):
            break
    return found


def test_the_front_names_the_chosen_trial(page: Page) -> None:
    found = rows(page, "The front: no trial is better in both MACs and F1")
    assert found[0] == ["trial", "MACs", "F1", "score", "expected score", "P(F1 < floor)"]
    assert [row[0] for row in found[1:]] == ["0", "1", "2", "3 (chosen)", "4", "5"]
    assert found[4] == ["3 (chosen)", "1,900,000", "0.5600", "0.4676", "0.4776", "12.5 %"]
    said = "9 trials: 7 complete, 1 pruned, 1 over-budget. Chosen: 3. The lowest <score>"
    assert said in section(page, "search")


def test_the_recipe_is_flat(page: Page) -> None:
    assert rows(page, "Recipe") == [["parameter", "value"], ["loss.focal", "0.5"], ["lr", "0.1"]]


def test_the_layers_before_and_after(page: Page) -> None:
    assert rows(page, "Layers; error is relative to the weights") == [
        ["layer", "MACs before", "after", "method", "ranks", "error", "sensitivity", "shape"],
        ["stage<1>.conv", "900", "400", "tucker", "3 × 4", "0.250", "0.0100", "8 × 4 × 3 × 3"],
        ["head", "100", "100", "–", "", "–", "–", "8 × 4 × 3 × 3"],
    ]
    said = "the convolutions and linear layers together went from 1,000 to 500 MACs (50.0 %)."
    assert f"1 of 2 layers were factorized; {said}" in section(page, "compression")
    assert section(page, "compression").endswith("The network <a> is exported.")


def test_the_data_and_its_faults(page: Page) -> None:
    assert rows(page, "Faults found and what was done") == [
        ["fault", "files", "done", "such as"],
        ["duplicate", "1", "dropped", "Metal/2.jpg"],
        ["truncated", "1", "dropped", "Metal/<b>.jpg"],
    ]
    told = section(page, "data")
    assert "32 files checked and 30 images of 3 classes kept: 20 to train on, 10 to" in told
    assert "3 pairs of images look almost alike, 1 across two classes" in told


def test_each_class_has_its_row(page: Page) -> None:
    assert rows(page, "Each class on the validation split")[1:] == [
        [CLASSES[1], "0.667", "0.667", "0.667", "3", "3"],
        [HOSTILE, "0.857", "1.000", "0.750", "4", "3"],
        ["Metal", "0.857", "0.750", "1.000", "3", "4"],
    ]


def test_of_many_classes_the_weakest_come_first(
    project: Path, report: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weighin.report.page.MANY", 2)
    monkeypatch.setattr("weighin.report.page.FEW", 1)
    folder = report()
    page = read_page((folder / "report.html").read_text(encoding="utf-8"))
    weakest = [CLASSES[1], "0.667", "0.667", "0.667", "3", "3"]
    assert rows(page, "The 1 weakest of 3 classes on the validation split")[1:] == [weakest]
    assert len(rows(page, "Each class on the validation split")[1:]) == 3
    assert rows(page, "The most confused pairs on the validation split") == [
        ["true class", "label", "images", "share of the class"],
        [CLASSES[0], CLASSES[1], "1", "25.0 %"],
    ]
    sheets = [t.attributes["alt"] for t in page.named("img") if "sheet" in t.attributes["alt"]]
    assert sheets == [f"Contact sheet: {CLASSES[1]}", "Contact sheet: Suspicious pairs"]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "The 1 weakest of 3 classes on the validation split:" in card
    assert card.count("\n| Metal |") == 0
    assert " and 1 more, which model.onnx lists." in card


def test_what_it_was_made_from_is_what_the_provenance_says(page: Page, written: Path) -> None:
    facts = json.loads((written / "provenance.json").read_text(encoding="utf-8"))["predicate"]
    inputs = [
        [row["name"], *next(iter(row["digest"].items()))]
        for row in facts["buildDefinition"]["resolvedDependencies"]
    ]
    assert rows(page, "Inputs by their hashes")[1:] == inputs
    versions = facts["runDetails"]["builder"]["version"]
    shown = rows(page, "Packages that compute")[1:]
    assert shown == [[name, versions[name]] for name in sorted(versions)]


def test_columns_of_numbers_line_up_right(page: Page) -> None:
    rows = [["a", "1,000", "1", "3 × 4"], ["b", "−0.5", "x", "12.5 %"]]
    assert number_columns(["name", "n", "mixed", "n"], rows) == [False, True, False, True]
    found = {tag.text: tag.attributes.get("class") for tag in page.named("th", "td")}
    assert (found["1,900,000"], found["labelled so"]) == ("number", "number")
    assert (found["3 (chosen)"], found["tucker"]) == (None, None)
