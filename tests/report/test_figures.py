"""The figures at their edges, what they show, and how they live together on a page."""

import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_project import CLASSES, make_params

from weighin.grading.score import ConfusionMatrix, Cost
from weighin.report import figures
from weighin.report.evaluation import BINS, Calibration
from weighin.report.figures import MOST_CLASSES, confusion_matrix, most_confused, tradeoff
from weighin.report.formatting import inline, shorten
from weighin.report.inputs import Epoch, Layer, Splits
from weighin.search.trials import StudyRecord, TrialRecord

CONTEST = make_params().contest
COST = Cost(1, 1)
NAN = float("nan")


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return [part.text or "" for part in root.iter("{http://www.w3.org/2000/svg}text")]


def trial(number: int, macs: int | None, f1: float | None, state: str = "complete") -> TrialRecord:
    return TrialRecord(number, state, macs, {}, f1=f1)


def study(*trials: TrialRecord, chosen: int = 0) -> StudyRecord:
    return StudyRecord(trials, chosen, "")


def test_the_front_is_what_nothing_beats() -> None:
    found = study(
        trial(0, 300, 0.7),
        trial(1, 100, 0.4),  # worse for the same work
        trial(2, 200, 0.5),  # more work for the same
        trial(3, 100, 0.5),
        trial(4, 100, 0.5),  # the same again: the first stays
        trial(5, 50, None, "pruned"),
        trial(6, None, 0.9),
        trial(7, 400, 0.9, "over-budget"),
    )
    assert [one.number for one in found.front()] == [3, 0]
    assert [one.number for one in found.contenders()] == [3, 0]


def test_the_chosen_trial_is_shown_though_others_beat_it() -> None:
    found = study(trial(0, 300, 0.7), trial(1, 200, 0.5), trial(2, 100, 0.6), chosen=1)
    assert [one.number for one in found.front()] == [2, 0]
    assert [one.number for one in found.contenders()] == [2, 1, 0]


def test_the_search_without_a_trained_network_is_an_empty_figure() -> None:
    svg = tradeoff(study(trial(0, 10**6, None, "pruned")), CONTEST, COST)
    assert "chosen" not in texts(svg)
    assert "million MACs" in texts(svg)


def test_the_chosen_network_and_the_floor_are_marked() -> None:
    svg = tradeoff(study(trial(0, 10**6, 0.4), trial(1, 10**6, 0.6), chosen=1), CONTEST, COST)
    assert {"chosen", "front", "trial", "floor 0.5", "equal score (lower is better)"} <= {
        *texts(svg)
    }


@pytest.mark.parametrize("formula", ["f1", "accuracy"])
def test_a_contest_without_a_floor_draws_none(formula: str) -> None:
    contest = dataclasses.replace(CONTEST, score=formula)
    svg = tradeoff(study(trial(0, 10**6, 0.4), trial(1, 10**6, 0.6)), contest, COST)
    assert not [text for text in texts(svg) if "floor" in text]


def test_lines_of_equal_score_stop_at_the_ceiling() -> None:
    """Past it the score leaps by 1000, and no line would be left for the rest."""
    contest = dataclasses.replace(CONTEST, score="accuracy", max_macs=10**6)
    svg = tradeoff(study(trial(0, 10**6, 0.4), trial(1, 10**5, 0.6)), contest, COST)
    marks = [float(text) for text in texts(svg) if re.fullmatch(r"0\.\d+", text)]
    assert len(marks) > 10  # the axis has about five
    assert not [text for text in texts(svg) if re.fullmatch(r"\d00+", text)]


def test_names_are_never_read_as_mathematics() -> None:
    svg = figures.class_counts(Splits(dict.fromkeys(CLASSES, 3), dict.fromkeys(CLASSES, 1)))
    assert set(CLASSES) <= set(texts(svg))


def test_the_largest_classes_come_first_and_no_more_than_forty() -> None:
    train = {f"class {n:02d}": n for n in range(60)}
    names = [t for t in texts(figures.class_counts(Splits(train, {}))) if t.startswith("class ")]
    assert names == [f"class {n:02d}" for n in range(59, 19, -1)]


def test_layers_are_the_largest_in_the_networks_order() -> None:
    layers = [Layer(f"l{n:02d}", (1,), (n * 7) % 30, 0) for n in range(30)]
    names = [t for t in texts(figures.layer_macs(layers)) if t.startswith("l")]
    wanted = sorted(layers, key=lambda layer: -layer.macs_before)[: figures.MOST_LAYERS]
    assert names == sorted(layer.path for layer in wanted)


def test_a_network_without_work_and_a_training_without_loss_still_draw() -> None:
    texts(figures.layer_macs([Layer("a", (1,), 0, 0)]))
    texts(figures.training_curves("train", [Epoch(0, 0.0)]))
    texts(figures.class_counts(Splits({"a": 0}, {"a": 0})))


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    history = [Epoch(n, 1.0, f1=f1) for n, f1 in enumerate((0.5, 0.75, 0.75))]
    assert "validation F1, best 0.7500 at epoch 1" in texts(
        figures.training_curves("train", history)
    )


def test_empty_bins_have_no_bar_and_no_count() -> None:
    images = np.array([0] * 9 + [1234])
    values = np.array([NAN] * 9 + [0.5])
    svg = figures.reliability(Calibration(images, values, values, 0.0))
    assert len(images) == BINS
    assert "1,234" in texts(svg)
    assert "0" not in texts(svg)
    assert "nan" not in svg


def test_a_large_confusion_shows_the_classes_in_the_most_mistakes() -> None:
    size = MOST_CLASSES + 10
    counts = np.eye(size, dtype=np.int64) * 5
    for k in range(10, size):
        counts[k, (k + 1 - 10) % MOST_CLASSES + 10] += 1
    table = ConfusionMatrix(tuple(f"class {k:02d}" for k in range(size)), counts)
    assert most_confused(table) == list(range(10, size))
    shown = {text for text in texts(confusion_matrix(table)) if text.startswith("class")}
    assert shown == {f"class {k:02d}" for k in range(10, size)}


def test_every_count_is_in_its_matrix() -> None:
    table = ConfusionMatrix(("a", "b"), np.array([[7, 1], [0, 12]]))
    shown = [text for text in texts(confusion_matrix(table)) if text.isdigit()]
    assert shown == ["7", "1", "12"]


def test_two_figures_on_a_page_share_no_id() -> None:
    svg = figures.training_curves("train", [Epoch(n, 1.0, f1=0.5) for n in (0, 1)])
    first, second = (inline(svg, name, "what it shows") for name in ("one", "two"))
    ids = [re.findall(r' id="([^"]+)"', text) for text in (first, second)]
    assert ids[0]
    assert len(set(ids[0])) == len(ids[0])
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip((first, second), ids, strict=True):
        used = re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)
        assert used
        assert set(used) <= set(own)


def test_a_page_gives_its_own_colors_and_the_file_keeps_its() -> None:
    svg = figures.training_curves("train", [Epoch(0, 1.0)])
    assert "#1f2328" in svg
    text = inline(svg, "one", 'a "name" & <more>')
    assert "#1f2328" not in text
    assert "var(--ink)" in text
    assert 'aria-label="a &quot;name&quot; &amp; &lt;more&gt;"' in text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("short", "short"),
        ("a\n b\t c", "a b c"),
        ("x" * 18, "x" * 18),
        ("x" * 19, "x" * 17 + "…"),
    ],
)
def test_labels_are_cut_to_one_line(text: str, label: str) -> None:
    assert shorten(text) == label
