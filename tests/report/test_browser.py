"""The page in a real headless Chromium: phone and desk, light and dark, nothing fetched."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_project import layer, make_params, make_project, trial
from tests.browser import chrome, needs_browser

from weighin.files import write_json, write_text
from weighin.report.inputs import Inputs
from weighin.report.page import write_report

pytestmark = needs_browser
__all__ = ["chrome"]  # a fixture
PHONE, DESK = (360, 740), (1280, 900)
OPEN_ALL = "document.querySelectorAll('details').forEach(part => { part.open = true; });"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with more and longer of everything than a phone has room for."""
    root = make_project(tmp_path_factory.mktemp("crowded"))
    endless = "features_" * 12
    layers = [
        layer(f"{endless}{n}", "tucker", [128, 256], 10**8 + n, 10**7, 0.1, 0.02) for n in range(60)
    ]
    write_json(root / "work/decompose/layers.json", layers)
    write_text(root / "work/decompose/network.yaml", f"rows: [{'[1, Conv, [16, 3, 2]], ' * 30}]\n")
    trials = [trial(n, 10**6 * (n + 1), 0.3 + n / 100) for n in range(60)]
    study = {"trials": trials, "chosen": 9, "why": "W" * 200}
    write_json(root / "work/search/trials.json", study)
    write_json(root / "work/tune/recipe.json", {endless: {endless: [0.123456789] * 40}})
    write_json(root / "work/train/history.json", [{"epoch": 0, "loss": 0.0, "f1": 0.0}])
    data = json.loads((root / "work/prepare/report.json").read_text(encoding="utf-8"))
    data["faults"][0]["name"] = f"{endless}/{endless}.jpg"
    write_json(root / "work/prepare/report.json", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_report(Inputs(), make_params(), Path("submission"))
    return root / "submission"


def show(chrome: Any, page: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    """Load a page and open all that is folded; the logs then hold this page's lines alone."""
    for log in ("browser", "performance"):
        chrome.get_log(log)
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chrome.get(page.as_uri())
    chrome.execute_script(OPEN_ALL)


def requests(chrome: Any) -> list[str]:
    events = [json.loads(row["message"])["message"] for row in chrome.get_log("performance")]
    sent = [e["params"]["request"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [request["url"] for request in sent]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_it_is_quiet_and_asks_for_nothing(
    chrome: Any, written: Path, size: tuple[int, int], scheme: str
) -> None:
    page = written / "report.html"
    show(chrome, page, size, scheme)
    assert chrome.get_log("browser") == []
    fetched = [url for url in requests(chrome) if not url.startswith("data:image/jpeg;base64,")]
    assert fetched == [page.as_uri()]
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert chrome.execute_script(broken) == 0


def test_markup_that_slipped_through_would_be_stopped(
    chrome: Any, written: Path, tmp_path: Path
) -> None:
    """Negative control of the test above, and of the page's own policy."""
    text = (written / "report.html").read_text(encoding="utf-8")
    slipped = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "run"</script></body>'
    page = tmp_path / "slipped.html"
    page.write_text(text.replace("</body>", slipped), encoding="utf-8")
    show(chrome, page)
    said = [row["message"] for row in chrome.get_log("browser")]
    assert len([line for line in said if "Content Security Policy" in line]) == 2
    assert chrome.title == "Weigh-in: 3 classes, 204 MACs"
    open_page = tmp_path / "open.html"
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    open_page.write_text(policy.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    show(chrome, open_page)
    assert "http://127.0.0.1:9/x.png" in requests(chrome)
    assert chrome.title == "run"


@pytest.mark.parametrize("width", [320, 360, 412, 768, 1280])
@pytest.mark.parametrize("name", ["written", "crowded"])
def test_nothing_is_wider_than_the_screen(
    chrome: Any, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    show(chrome, request.getfixturevalue(name) / "report.html", (width, 740))
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    # what is wider scrolls in its own box, and nothing sticks out of one that does not scroll
    sticking = """
        const scrolls = part => part.closest('.wide, pre, .chart') !== null;
        return [...document.querySelectorAll('main *, header *')]
            .filter(part => !scrolls(part) && part.getBoundingClientRect().right > innerWidth + 1)
            .map(part => part.outerHTML.slice(0, 80));
    """
    assert chrome.execute_script(sticking) == []


def test_every_link_leads_to_a_section(chrome: Any, written: Path) -> None:
    show(chrome, written / "report.html", PHONE)
    links = chrome.execute_script(
        "return [...document.querySelectorAll('a')].map(link => link.getAttribute('href'))"
    )
    assert len(links) == 9
    for link in links:
        chrome.execute_script("location.hash = arguments[0]", link)
        heading = chrome.execute_script("return document.querySelector(':target')?.tagName")
        assert heading == "H2", link


def test_the_colours_follow_the_reader(chrome: Any, written: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = """
        const label = document.querySelector('#classes-figure text');
        return getComputedStyle(label).fill;
    """
    seen = {}
    for scheme in ("light", "dark"):
        show(chrome, written / "report.html", DESK, scheme)
        seen[scheme] = (chrome.execute_script(paper), chrome.execute_script(ink))
    assert seen == {
        "light": ("rgb(255, 255, 255)", "rgb(31, 35, 40)"),
        "dark": ("rgb(15, 20, 25)", "rgb(230, 237, 243)"),
    }


CONTRAST = """
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = part => {
        for (; part; part = part.parentElement) {
            const colour = numbers(getComputedStyle(part).backgroundColor);
            if (colour.length == 3 || colour[3] > 0) return colour;
        }
    };
    const found = [];
    for (const part of document.querySelectorAll('body *')) {
        const own = [...part.childNodes].some(node => node.nodeType == 3 && node.data.trim());
        if (!own) continue;
        const style = getComputedStyle(part);
        const ink = part.matches('svg *') ? style.fill : style.color;
        if (ink == 'rgb(254, 254, 254)') continue;  // in a full cell of a confusion matrix
        const pair = [light(numbers(ink)), light(behind(part))].sort((a, b) => b - a);
        found.push([(pair[0] + 0.05) / (pair[1] + 0.05), part.textContent.slice(0, 40)]);
    }
    return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(chrome: Any, written: Path, scheme: str) -> None:
    """WCAG 2.2's level AA: a contrast of at least 4.5."""
    show(chrome, written / "report.html", DESK, scheme)
    found = chrome.execute_script(CONTRAST)
    assert len(found) > 200
    assert [text for contrast, text in found if contrast < 4.5] == []


def test_figures_can_be_read_on_a_phone(chrome: Any, crowded: Path) -> None:
    """Every letter is at least 7 pixels tall as laid out, wherever a figure scrolls or not."""
    show(chrome, crowded / "report.html", PHONE)
    sizes = chrome.execute_script("""
        return [...document.querySelectorAll('svg text')].map(text => {
            const scale = Math.hypot(text.getCTM().a, text.getCTM().b);
            return [scale * parseFloat(getComputedStyle(text).fontSize), text.textContent];
        });
    """)
    assert len(sizes) > 100
    assert [text for size, text in sizes if size < 7] == []
