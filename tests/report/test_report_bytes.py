"""The same inputs give the same bytes: in another process, place, language and time zone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_project import make_project

from weighin.determinism import PINS

HERE = Path(__file__).parent
SCRIPT = """
import dataclasses, hashlib, json, locale, sys, time
from pathlib import Path
from made_project import make_params
from weighin.report.inputs import Inputs
from weighin.report.page import write_report

locale.setlocale(locale.LC_ALL, "")
params = dataclasses.replace(make_params(), seed=int(sys.argv[1]))
write_report(Inputs(), params, Path("submission"))
files = sorted(path for path in Path("submission").rglob("*") if path.is_file())
made = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
print(json.dumps({"made": made, "hash": hash("weighin"), "zone": time.tzname[0]}))
"""


def write(root: Path, seed: int = 1, **environment: str) -> dict[str, dict[str, str]]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(seed)],
        cwd=root,
        env=inherited | PINS | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    root = make_project(tmp_path_factory.mktemp("one") / "project")
    return write(root, PYTHONHASHSEED="1", TZ="UTC", LANG="C.UTF-8")


def test_nothing_around_the_process_changes_a_byte(
    here: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "matplotlibrc").write_text("figure.facecolor: red\nfont.size: 31\n")
    there = write(
        make_project(tmp_path / "elsewhere" / "another name"),
        PYTHONHASHSEED="2",
        TZ="Asia/Kathmandu",
        LANG="de_DE.UTF-8",
        LC_ALL="C",
        MPLCONFIGDIR=str(settings),
        SOURCE_DATE_EPOCH="86400",
        PYTHONUTF8="0",
    )
    # the surroundings did differ
    assert here["hash"] != there["hash"]
    assert here["zone"] != there["zone"]
    assert len(here["made"]) > 20
    assert here["made"] == there["made"]


def test_another_seed_is_seen_where_it_belongs(
    here: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Negative control. The figures are the logits', so only the hash of the params tells it."""
    there = write(make_project(tmp_path / "project"), seed=2, PYTHONHASHSEED="1", TZ="UTC")
    differ = {name for name, sha in here["made"].items() if there["made"][name] != sha}
    assert differ == {"submission/provenance.json", "submission/report.html"}


def test_no_path_or_name_of_this_machine_is_written(written: Path, whole: Path) -> None:
    secrets = [str(whole), str(HERE), os.uname().nodename, sys.prefix]
    for path in written.rglob("*"):
        if path.is_file() and path.name != "model.onnx":
            text = path.read_text(encoding="utf-8")
            assert not [secret for secret in secrets if secret in text], path.name
            assert "\r" not in text
            assert text.endswith("\n")
