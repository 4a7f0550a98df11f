"""What the documents say is what there is."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest

from weighin.cli import commands
from weighin.data.demo import DEFAULT_MD5
from weighin.files import read_yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_drawn_pipeline_is_that_of_dvc_yaml():
    drawn = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--mermaid"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.expandtabs(4)
    assert f"```mermaid\n{drawn.rstrip()}\n```" in text("docs/ARCHITECTURE.md")


def test_every_package_is_described():
    packages = {p.name for p in (ROOT / "src/weighin").iterdir() if (p / "__init__.py").exists()}
    described = set(re.findall(r"^\| `([a-z]+)/`", text("docs/ARCHITECTURE.md"), re.MULTILINE))
    assert described == packages


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name):
    makefile = text("Makefile")
    code = "\n".join(re.findall(r"^    .*$|`[^`]+`", text(name), re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for command in re.findall(r"\bweighin ([a-z][a-z-]*)", code):
        assert command in commands().commands, f"weighin {command}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_files_resolve(name):
    for target in re.findall(r"\]\(([^)#:]+)\)", text(name)):
        assert ((ROOT / name).parent / target).exists(), target


def test_parameters_in_recipes_exist():
    from weighin.params import Params
    from weighin.validation import parameters

    named = set(re.findall(r"-S '?([a-z_.]+)=", text("README.md")))
    assert named
    assert named <= set(parameters(Params))


DATA = read_yaml(ROOT / "data.dvc")["outs"][0]["md5"]
drawn = pytest.mark.skipif(DATA != DEFAULT_MD5, reason="the README is about the drawn data set")


@drawn
def test_the_result_is_that_of_the_committed_metrics():
    found = json.loads(text("submission/metrics.json"))
    shown = text("README.md").split("<!-- result -->")[1].split("<!-- end -->")[0]
    for name in ("f1", "f1_low", "f1_high", "score"):
        assert f"{found[name]:.4f}" in shown
        assert f"{found[f'test_{name}']:.4f}" in shown
    assert f"with {found['macs']:,} MACs an image and {found['parameters']:,} parameters" in shown


@drawn
def test_the_record_is_that_of_this_code_and_data():
    """What verify would rebuild: dvc.lock names the data and the locked packages."""
    lock = read_yaml(ROOT / "dvc.lock")["stages"]
    recorded = {dep["path"]: dep["md5"] for stage in lock.values() for dep in stage["deps"]}
    assert recorded["data"] == DATA
    packages = (ROOT / "requirements.lock").read_bytes()
    assert recorded["requirements.lock"] == hashlib.md5(packages).hexdigest()
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    metrics = (ROOT / "submission/metrics.json").read_bytes()
    assert outs["submission/metrics.json"] == hashlib.md5(metrics).hexdigest()


def test_the_ways_to_compress_are_those_that_were_measured():
    from bench.compress import CURVES
    from bench.curves import PICTURE, Point, drawn, table

    points = [Point(**row) for row in json.loads(CURVES.read_text(encoding="utf-8"))]
    curves = [list(curve) for _, curve in groupby(points, lambda point: point.seed)]
    assert f"<!-- ways -->\n{table(curves)}<!-- end -->" in text("docs/waste7.md")
    assert drawn(curves) == PICTURE.read_text(encoding="utf-8")


def test_the_parts_are_worth_what_was_measured():
    from bench.parts import BUILDS, Built, table

    builds = [Built(**row) for row in json.loads(BUILDS.read_text(encoding="utf-8"))]
    assert f"<!-- parts -->\n{table(builds)}<!-- end -->" in text("docs/waste7.md")


def test_an_empty_table_is_filled_and_the_next_one_kept(tmp_path):
    from bench.pages import put

    page = tmp_path / "page.md"
    page.write_text("<!-- a -->\n<!-- end -->\n<!-- b -->\nb\n<!-- end -->\n")
    put(page, "a", "new\n")
    assert page.read_text() == "<!-- a -->\nnew\n<!-- end -->\n<!-- b -->\nb\n<!-- end -->\n"


def test_the_front_is_the_one_that_was_measured():
    from bench.front import PICTURE, POINTS, Point, drawn, table

    points = [Point(**row) for row in json.loads(POINTS.read_text(encoding="utf-8"))]
    assert f"<!-- front -->\n{table(points)}<!-- end -->" in text("docs/waste7.md")
    assert drawn(points) == PICTURE.read_text(encoding="utf-8")


def test_the_networks_in_8_bits_are_those_that_were_measured():
    from bench.int8 import POINTS, Point, table

    points = [Point(**row) for row in json.loads(POINTS.read_text(encoding="utf-8"))]
    assert f"<!-- int8 -->\n{table(points)}<!-- end -->" in text("docs/devices.md")


def test_the_tables_of_figures_are_those_that_were_measured():
    from bench.__main__ import headlines, table

    found = json.loads(text("bench/results.json"))
    assert f"<!-- figures -->\n{table(found)}<!-- end -->" in text("docs/FIGURES.md")
    assert f"<!-- figures -->\n{headlines(found)}<!-- end -->" in text("README.md")


PACKAGE = ROOT / "src/weighin"
# files of the ground floor that import packages
ABOVE = {"__main__.py", "api.py", "doctor.py", "golden.py", "pretrained.py", "verification.py"}


def imported_packages(files: Iterable[Path]) -> set[str]:
    """Return the packages of weighin that files import, wherever in their code."""
    names = {name for file in files for name in re.findall(IMPORT, file.read_text("utf-8"))}
    return {name for name in names if (PACKAGE / name).is_dir()}


IMPORT = re.compile(r"^ *(?:from|import) weighin\.(\w+)", re.MULTILINE)


def test_packages_import_what_the_architecture_says() -> None:
    table = text("docs/ARCHITECTURE.md")
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ?([a-z, ]*) ?\|$", table, re.MULTILINE)
    allowed = {name: set(re.findall(r"\w+", packages)) for name, packages in rows}
    order = list(allowed)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(order) == folders - {"cli"}
    for name, packages in allowed.items():
        assert packages <= set(order[: order.index(name)]), f"{name} stands above what it imports"
        found = imported_packages((PACKAGE / name).rglob("*.py")) - {name}
        assert found <= packages, f"{name} imports {found - packages}"


def test_the_ground_floor_imports_no_package() -> None:
    floor = [path for path in PACKAGE.glob("*.py") if path.name not in ABOVE]
    assert imported_packages(floor) == set()
    assert imported_packages(PACKAGE / name for name in ABOVE)
