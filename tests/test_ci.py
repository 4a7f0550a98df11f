"""Every area of tests can be run alone, in `make test-all`, and by .ci/run when it changed."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"][
    "markers"
]
NO_AREAS = {"serial", "repeats"}
AREAS = {line.partition(":")[0] for line in MARKERS} - NO_AREAS
CI = (ROOT / ".ci/run").read_text()


def test_the_makefile_knows_every_area() -> None:
    line = re.search(r"^AREAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    assert set(line[1].split()) == AREAS


def test_the_expressions_that_choose_tests_name_markers_alone() -> None:
    """With --strict-markers a word that is no marker, such as True, stops pytest."""
    for command in (["test"], *(["test-area", f"AREA={area}"] for area in sorted(AREAS))):
        printed = subprocess.run(
            ["make", "--dry-run", *command], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        expressions = re.findall(r'-m "([^"]+)"', printed)
        assert len(expressions) == 2
        for expression in expressions:
            words = set(re.findall(r"\w+", expression)) - {"not", "and", "or"}
            assert words <= AREAS | NO_AREAS, expression


def test_ci_runs_every_area_when_what_it_covers_changed() -> None:
    lines = {name: paths.split() for name, paths in re.findall(r"^area (\w+) (.+)$", CI, re.M)}
    assert lines.keys() == AREAS
    for paths in lines.values():
        for path in paths:
            assert list(ROOT.glob(path)), path


def test_every_marked_test_is_of_a_known_area() -> None:
    used = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"pytest\.mark\.(\w+)", path.read_text(encoding="utf-8"))
    }
    assert used >= AREAS


def test_repeats_run_in_test_all_alone() -> None:
    def expressions(*command: str) -> list[str]:
        line = ["make", "--dry-run", *command]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        return re.findall(r'-m "([^"]+)"', done.stdout)

    everyday, all_of_it = expressions("test-area", "AREA=kills"), expressions("test-all")
    assert all(expression.endswith(" and not repeats") for expression in everyday)
    assert not any("repeats" in expression for expression in all_of_it)
    assert len(all_of_it) == 2 + 2 * len(AREAS)
