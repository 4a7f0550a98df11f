"""The same bytes on other processors: the golden values, and a whole project by `dvc repro`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.project import copied, run
from tests.portability.emulated import CPUS, emulated, environment
from weighin.determinism import PINS
from weighin.files import read_yaml
from weighin.golden import RECORD, recorded

pytestmark = [pytest.mark.portability, pytest.mark.timeout(1800)]


def computed(folder: Path, code: str, unpinned: bool = False) -> dict[str, str]:
    """Return the golden values that `code` prints there."""
    env = environment(folder, RECORD.parents[1])
    if unpinned:
        env = {name: value for name, value in env.items() if name not in PINS}
        env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        ["python", "-c", f"import json, weighin.golden as g; print(json.dumps({code}))"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    values: dict[str, str] = json.loads(done.stdout)
    return values


@pytest.mark.parametrize("part", ["[:2]", "[2:]"])
@pytest.mark.parametrize(
    "cpu", [CPUS[1], *(pytest.param(cpu, marks=pytest.mark.repeats) for cpu in (CPUS[0], CPUS[2]))]
)
def test_golden_values(tmp_path: Path, cpu: str, part: str) -> None:
    found = computed(emulated(tmp_path / "emulated", cpu), f"g.computed(g.GROUPS{part})")
    groups = {name.partition("/")[0] for name in found}
    assert len(groups) >= 2
    expected = {n: value for n, value in recorded().items() if n.partition("/")[0] in groups}
    assert found == expected


@pytest.mark.repeats
def test_without_the_pins_they_differ(tmp_path: Path) -> None:
    older = emulated(tmp_path / "emulated", "Nehalem")  # every library has code for it too
    found = computed(older, "g.computed([g.training])", unpinned=True)
    assert any(recorded()[name] != value for name, value in found.items())


def test_what_an_emulated_process_starts_is_emulated(tmp_path: Path) -> None:
    folder = emulated(tmp_path / "emulated", "Haswell")
    script = tmp_path / "features.py"
    script.write_text(
        "import multiprocessing, numpy\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        "def wide(_=0): return bool(features['AVX512F'])\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(wide(), pool.map(wide, [0])[0], features['AVX2'])\n"
    )
    env = environment(folder, tmp_path)
    env.pop("NPY_DISABLE_CPU_FEATURES", None)
    done = subprocess.run(
        ["python", str(script)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True"]


# all stages in one process, as starting each takes the emulator half a minute
STAGES = """
import runpy, sys
from weighin.stage import run
for name in sys.argv[1:]:
    run(name, runpy.run_path(f"stages/{name}.py")[name])
"""


@pytest.mark.parametrize(
    "cpu", [CPUS[0], *(pytest.param(cpu, marks=pytest.mark.repeats) for cpu in CPUS[1:])]
)
def test_a_whole_project(built: Path, tmp_path: Path, cpu: str) -> None:
    """Built again from the data alone, it is to DVC what it was."""
    root = copied(built, tmp_path)
    stages = read_yaml(root / "dvc.yaml")["stages"]
    for stage in read_yaml(root / "dvc.lock")["stages"].values():
        for path in (root / entry["path"] for entry in stage["outs"]):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert set(changed(root)) == set(stages)
    env = environment(emulated(tmp_path / "emulated", cpu), root / "src", WEIGHIN_WORKERS="1")
    names = ("PATH", "PYTHONPATH", "WEIGHIN_WORKERS")
    run(root, "python", "-c", STAGES, *stages, **{name: env[name] for name in names})
    assert changed(root) == {"inputs": ["always changed"]}


def changed(root: Path) -> dict[str, list[Any]]:
    """Return what DVC sees of each stage that is not as recorded."""
    found: dict[str, list[Any]] = json.loads(run(root, "dvc", "status", "--json").stdout)
    return found
