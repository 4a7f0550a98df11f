"""The board's page in a real headless Chromium, at a desk and on a phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser import chrome, needs_browser
from weighin.contest.grading import Costs, Grader, Outcome
from weighin.contest.leaderboard import Options, ranked
from weighin.contest.pages import write_board
from weighin.contest.ranking import is_public
from weighin.files import read_json
from weighin.grading.limits import Limits

pytestmark = needs_browser
__all__ = ["chrome"]  # a fixture
TEAMS = 12


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of twelve teams, one of them with a long name, and one without a rank."""
    out = tmp_path_factory.mktemp("board")
    names = [f"{n}.png" for n in range(120)]
    truth = {name: "abc"[n % 3] for n, name in enumerate(names)}
    outcomes = []
    for number in range(TEAMS):
        costs = Costs(100_000 * (number + 1), 10, 5000.0, 0.01, 0)
        wrong = 20 - number
        if number == 5:  # right on the public part alone
            wrong, names = 30, sorted(truth, key=lambda n: is_public(n, 0.5, 0))
        labels = {n: "a" if i < wrong else truth[n] for i, n in enumerate(names)}
        team = f"team{number}" if number else "a team with a long name " * 4
        outcomes.append(Outcome(team, "graded", sha256=f"{number}", costs=costs, labels=labels))
    outcomes.append(Outcome("cheat", "refused", "operator Loop: its work cannot be counted"))
    board = ranked(
        outcomes, truth, Options(Grader(Path(), Limits(1)), Path("truth.csv"), resamples=200)
    )
    write_board(board, out)
    return out / "leaderboard.html"


@pytest.mark.parametrize("size", [(1280, 900), (360, 740)])
def test_the_board_fits_and_reads(page: Path, chrome: Any, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chrome.get(page.as_uri())
    wide = "return document.documentElement.scrollWidth"
    assert chrome.execute_script(wide) <= size[0]
    rows = "return [...document.querySelectorAll('table')].map(t => t.tBodies[0].rows.length)"
    assert chrome.execute_script(rows) == [TEAMS, TEAMS, 1]
    first = "return document.querySelector('tbody td').textContent"
    assert chrome.execute_script(first) == "1"
    assert chrome.execute_script("return document.querySelectorAll('svg[role=img]').length") == 2
    assert chrome.get_log("browser") == []


def test_the_public_page_and_those_of_authors_tell_nothing_of_the_private_part(page: Path) -> None:
    found = read_json(page.with_name("leaderboard.json"))["submissions"]
    private = {line["team"]: f"{line['private']['score']:.4f}" for line in found if line["private"]}
    public = {line["team"]: f"{line['public']['score']:.4f}" for line in found if line["public"]}
    assert all(private[team] != public[team] for team in private)
    pages = sorted((page.parent / "submissions").iterdir())
    assert len(pages) == TEAMS + 1
    whole = page.read_text(encoding="utf-8")
    for path in (page.with_name("public.html"), *pages):
        text = path.read_text(encoding="utf-8")
        for value in {*private.values()} - {*public.values()}:
            assert value in whole
            assert value not in text
        assert "private" not in text.partition("<body")[2]


def test_each_link_leads_to_a_page(page: Path, chrome: Any) -> None:
    chrome.get(page.as_uri())
    links = chrome.execute_script("return [...document.querySelectorAll('a')].map(a => a.href)")
    assert len(links) == TEAMS + 1
    assert all(Path(link.removeprefix("file://")).is_file() for link in links)
    chrome.get(links[-1])
    assert "cheat" in chrome.execute_script("return document.querySelector('h1').textContent")
    assert "its work cannot be counted" in chrome.page_source
