"""Another contest is a params change: every formula through metrics, page and card."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strict_html import Page, read_page

from weighin.grading.score import FORMULAS, Metrics, score
from weighin.params import Contest, Params
from weighin.report.formatting import RULES, SCORE_PARTS, rules

Write = Callable[..., Path]
F1 = (6 / 7 + 4 / 6 + 6 / 7) / 3  # of the made project's validation split, at accuracy 0.8
CONTEST = Contest("waste", 20_000_000, 1000, 100, 0.83656, 0.5)  # 204 MACs, 12 parameters


@dataclasses.dataclass(frozen=True)
class Told:
    """What a report says under a contest."""

    score: float
    parts: dict[str, str]
    cards: dict[str, tuple[str, str]]
    page: Page
    card: str


@pytest.fixture
def told(project: Path, params: Params, report: Write) -> Callable[..., Told]:
    def tell(formula: str, **changes: Any) -> Told:
        contest = dataclasses.replace(CONTEST, score=formula, **changes)
        folder = report(dataclasses.replace(params, contest=contest))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        page = read_page((folder / "report.html").read_text(encoding="utf-8"))
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        return Told(metrics["score"], parts(page, formula), cards(page), page, card)

    return tell


def parts(page: Page, formula: str) -> dict[str, str]:
    """The validation column of the table of the score's parts."""
    (table,) = [
        tag
        for tag in page.named("table")
        if tag.text.strip().startswith(f"The parts of the score ({formula})")
    ]
    start = page.tags.index(table)
    found = {}
    for place, tag in enumerate(page.tags[start:], start):
        if tag.name == "th" and tag.attributes["scope"] == "row":
            found[tag.text] = page.tags[place + 1].text
            if tag.text == "score":
                return found
    raise AssertionError("no score")


def cards(page: Page) -> dict[str, tuple[str, str]]:
    names = [tag.text for tag in page.named("dt")]
    values = [tag.text for tag in page.named("strong")][: len(names)]
    notes = [
        tag.text.removeprefix(value) for tag, value in zip(page.named("dd"), values, strict=True)
    ]
    return dict(zip(reversed(names), reversed(list(zip(values, notes, strict=True))), strict=True))


def test_waste(told: Callable[..., Told]) -> None:
    found = told("waste")
    quality = 1 - F1 / 0.83656
    assert found.score == round(0.204 + quality, 6)
    assert found.parts == {
        "MACs part": "0.2040",
        "F1 part": f"{quality:.4f}",
        "score": f"{0.204 + quality:.4f}",
    }
    assert found.cards["MACs an image"] == ("204", "20.4 % of the reference's 1,000")
    assert found.cards["Above the floor of 0.5"] == ("+0.2937", "4.8 % of 1,000 resamples under it")
    said = (
        "Score, lower is better: MACs / 1,000 + the F1 part, which is 1 − F1 / 0.83656, half of "
        "that once F1 is past 0.83656, and 1 under the floor of 0.5. In between, 0.01 of F1 is "
        "worth 12 MACs."
    )
    assert said in [tag.text for tag in found.page.named("p")]
    assert said in found.card
    assert (
        "On the validation split 4.8 % of 1,000 resamples fell under the floor of 0.5."
        in found.card
    )


def test_waste_under_its_floor(told: Callable[..., Told]) -> None:
    found = told("waste", floor_f1=0.9)
    assert found.score == 1.204
    assert found.parts["F1 part"] == "1.0000"
    assert found.cards["Above the floor of 0.9"][0] == "−0.1063"


def test_waste_past_its_reference(told: Callable[..., Told]) -> None:
    assert told("waste", reference_f1=0.6).score == round(0.204 + 0.5 * (1 - F1 / 0.6), 6)


def test_f1(told: Callable[..., Told]) -> None:
    found = told("f1")
    assert found.score == round(1 - F1, 6)
    assert found.parts == {"F1 part": f"{1 - F1:.4f}", "score": f"{1 - F1:.4f}"}
    assert found.cards["MACs an image"] == ("204", "not part of the score")
    assert not [name for name in found.cards if "floor" in name]
    assert "Score, lower is better: 1 − macro F1. MACs do not count." in found.card
    assert "floor" not in found.card


def test_accuracy_within_the_ceiling(told: Callable[..., Told]) -> None:
    found = told("accuracy", max_macs=204)
    assert found.score == 0.2
    assert found.parts == {
        "error rate": "0.2000",
        "over the ceiling": "0.0000",
        "score": "0.2000",
    }
    assert found.cards["MACs an image"] == ("204", "100.0 % of the ceiling of 204")
    assert "by a model of at most 204 MACs; above that ceiling 1000 is added." in found.card


def test_accuracy_above_the_ceiling(told: Callable[..., Told]) -> None:
    found = told("accuracy", max_macs=203)
    assert found.score == 1000.2
    assert found.parts["over the ceiling"] == "1000.0000"


def test_micronet(told: Callable[..., Told]) -> None:
    found = told("micronet")
    assert found.score == round(12 / 100 + 204 / 1000, 6)
    assert found.parts == {
        "parameters part": "0.1200",
        "operations part": "0.2040",
        "under the floor": "0.0000",
        "score": "0.3240",
    }
    assert "parameters / 100 + MACs / 1,000, of a model whose F1 reaches 0.5;" in found.card


def test_micronet_under_its_floor(told: Callable[..., Told]) -> None:
    assert told("micronet", floor_f1=0.8).score == 1000.324


def test_each_formula_has_its_words() -> None:
    assert RULES.keys() == FORMULAS.keys()
    for formula in FORMULAS:
        contest = dataclasses.replace(CONTEST, score=formula)
        assert score(contest, Metrics(0.6, 0.7, 204, 12)).parts.keys() <= SCORE_PARTS.keys()


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_words_know_where_the_score_jumps(formula: str) -> None:
    """A floor and a ceiling are told exactly where crossing them changes the score by a leap."""
    contest = dataclasses.replace(CONTEST, score=formula)

    def value(f1: float, macs: int) -> float:
        return score(contest, Metrics(f1, 0.7, macs, 12)).value

    at_floor = value(0.4999, 204) - value(0.5, 204)
    assert (rules(contest).floor == 0.5) == (at_floor > 0.1)
    at_ceiling = value(0.6, 20_000_001) - value(0.6, 20_000_000)
    assert (rules(contest).ceiling == 20_000_000) == (at_ceiling > 0.1)
