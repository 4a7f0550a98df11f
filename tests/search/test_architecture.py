"""The search itself, with real training in real processes: the same bytes however it was run."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from weighin.errors import ParamsError
from weighin.files import read_json, write_json
from weighin.network.cost import cost
from weighin.network.spec import read_spec, shipped
from weighin.params import Params
from weighin.search.stages import rungs, search
from weighin.search.trials import parse_trials
from weighin.training.device import REHEARSAL

LONG = {"trials": 6, "generation": 3, "epochs": 2, "halving": 2}

BROUGHT = """\
input: [24, 32]   # a comment
width: 1.0
rows:
- [1, Conv, [8, 3, 4]]
- [1, GlobalAvgPool, []]
- [1, Flatten, []]
- [1, Linear, [classes]]
"""


def with_search(params: Params, **changes: object) -> Params:
    return replace(params, search=replace(params.search, **changes))  # type: ignore[arg-type]


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def found(
    packed: Path, params: Params, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The outputs of an undisturbed search by one worker."""
    folder = tmp_path_factory.mktemp("one")
    search(packed, folder / "out", with_search(params, **LONG), folder / "scratch")
    return outputs(folder / "out")


def test_rungs_double() -> None:
    assert rungs(12, 1) == (12,)
    assert rungs(12, 3) == (3, 6, 12)
    assert rungs(3, 4) == (1, 3)


def test_the_study_is_read_by_the_report(found: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_bytes(found["trials.json"])
    values = read_json(tmp_path / "trials.json")
    study = parse_trials(values)
    assert sorted(found) == ["network.yaml", "trials.json"]
    assert [t.state for t in study.trials].count("complete") == 4  # two of each generation of three
    assert len(study.trials) == 6
    chosen = next(t for t in values["trials"] if t["number"] == study.chosen)
    assert chosen["network"].encode() == found["network.yaml"]
    assert chosen["macs"] == cost(read_spec_text(tmp_path, found), 9).macs


def read_spec_text(folder: Path, found: dict[str, bytes]) -> object:
    (folder / "network.yaml").write_bytes(found["network.yaml"])
    return read_spec(folder / "network.yaml")


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.cluster)])
def test_any_number_of_workers_makes_the_same_study(
    packed: Path, params: Params, tmp_path: Path, found: dict[str, bytes], workers: int
) -> None:
    search(
        packed, tmp_path / "out", with_search(params, **LONG, workers=workers), tmp_path / "scratch"
    )
    assert outputs(tmp_path / "out") == found


@pytest.fixture(scope="module")
def on_splits(
    packed: Path, params: Params, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The outputs of a search whose choice is made on three splits, by one worker."""
    folder = tmp_path_factory.mktemp("splits")
    search(packed, folder / "out", doubtful(params), folder / "scratch")
    return outputs(folder / "out")


def doubtful(params: Params, **changes: object) -> Params:
    """Return a search whose best two are too close on one split (seed 0's are not)."""
    return replace(with_search(params, **LONG, splits=3, **changes), seed=1)


def test_what_one_split_leaves_open_trains_on_the_others(
    packed: Path, params: Params, tmp_path: Path, on_splits: dict[str, bytes]
) -> None:
    single = replace(with_search(params, **LONG), seed=1)
    search(packed, tmp_path / "out", single, tmp_path / "scratch")
    made = outputs(tmp_path / "out"), on_splits
    one, three = (parse_trials(json.loads(files["trials.json"])) for files in made)
    assert one.trials == three.trials and one.splits == ()
    assert 2 <= len(three.splits) <= 4
    means = [sum(finalist.scores) / 3 for finalist in three.splits]
    assert [len(finalist.scores) for finalist in three.splits] == [3] * len(means)
    assert [finalist.mean for finalist in three.splits] == pytest.approx(means, abs=2e-6)
    assert means == sorted(means) and three.chosen == three.splits[0].number
    assert len({score for finalist in three.splits for score in finalist.scores}) > len(means)


def test_two_workers_choose_the_same_on_splits(
    packed: Path, params: Params, tmp_path: Path, on_splits: dict[str, bytes]
) -> None:
    search(packed, tmp_path / "out", doubtful(params, workers=2), tmp_path / "scratch")
    assert outputs(tmp_path / "out") == on_splits


@pytest.mark.kills
def test_a_search_killed_among_its_splits_goes_on_to_the_same_choice(
    packed: Path,
    params: Params,
    tmp_path: Path,
    on_splits: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finalists = len(json.loads(on_splits["trials.json"])["splits"])
    killed_in(tmp_path, packed, doubtful(params), 11)  # 10 of the search, 1 of a split
    search(packed, tmp_path / "out", doubtful(params), tmp_path / "scratch")
    assert outputs(tmp_path / "out") == on_splits
    assert capsys.readouterr().err.count("search: epochs") == 2 * finalists - 1


def test_several_trials_at_once_on_a_device_make_the_study_of_one(
    packed: Path, params: Params, tmp_path: Path
) -> None:
    device = replace(params, recipe=replace(params.recipe, device=REHEARSAL))
    made = []
    for workers in (1, 3):
        folder = tmp_path / f"{workers}"
        search(
            packed, folder / "out", with_search(device, **LONG, workers=workers), folder / "kept"
        )
        made.append(outputs(folder / "out"))
    assert made[0] == made[1] and "trials.json" in made[0]


def test_another_seed_makes_another_study(
    packed: Path, params: Params, tmp_path: Path, found: dict[str, bytes]
) -> None:
    other = replace(with_search(params, **LONG), seed=params.seed + 1)
    search(packed, tmp_path / "out", other, tmp_path / "scratch")
    assert outputs(tmp_path / "out")["trials.json"] != found["trials.json"]


MAIN = """
import os, signal, sys
from pathlib import Path

from weighin.validation import read
from weighin.files import read_json
from weighin.params import Params
from weighin.search.stages import search
from weighin.search.evaluation import EvaluationCache

class Dying(EvaluationCache):
    def add(self, task, outcome):
        super().add(task, outcome)
        if len(list(self._folder.glob("*.json"))) == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    import weighin.search.runner
    weighin.search.runner.EvaluationCache = Dying
    packed, out, params, scratch = sys.argv[1:5]
    search(Path(packed), Path(out), read(Params, read_json(Path(params)), params), Path(scratch))
"""


def killed_in(folder: Path, packed: Path, params: Params, kept: int) -> set[str]:
    """Kill a search when it keeps so many evaluations; return their names in folder/scratch."""
    (folder / "main.py").write_text(MAIN)
    write_json(folder / "params.json", asdict(params))
    paths = [packed, folder / "out", folder / "params.json", folder / "scratch"]
    command = [sys.executable, "main.py", *map(str, paths), str(kept)]
    killed = subprocess.run(command, cwd=folder)
    assert killed.returncode == -signal.SIGKILL
    names = {path.name for path in (folder / "scratch").glob("*.json")}
    assert len(names) == kept and not (folder / "out").exists()
    return names


@pytest.mark.kills
def test_a_killed_search_goes_on_to_the_same_study(
    packed: Path,
    params: Params,
    tmp_path: Path,
    found: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = with_search(params, **LONG)
    kept = killed_in(tmp_path, packed, long, 4)
    torn = tmp_path / "scratch" / min(kept)
    torn.write_bytes(torn.read_bytes()[:-20])
    for state in (tmp_path / "scratch").glob("*.state"):
        state.write_bytes(state.read_bytes()[:-1])  # these begin again
    search(packed, tmp_path / "out", long, tmp_path / "scratch")
    assert outputs(tmp_path / "out") == found
    evaluations, whole = 10, 3
    assert capsys.readouterr().err.count("search: epochs") == evaluations - whole


def test_a_longer_search_trains_the_new_trials_alone_to_the_same_bytes(
    packed: Path,
    params: Params,
    tmp_path: Path,
    found: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = with_search(params, **(LONG | {"trials": 3}))
    search(packed, tmp_path / "out", half, tmp_path / "kept")
    assert capsys.readouterr().err.count("search: epochs") == 5  # 3 trials at a rung, 2 go on
    search(packed, tmp_path / "out", with_search(params, **LONG), tmp_path / "kept")
    assert capsys.readouterr().err.count("search: epochs") == 5
    assert outputs(tmp_path / "out") == found


def test_a_finished_search_trains_nothing_again(
    packed: Path, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = with_search(params, trials=1, epochs=1)
    search(packed, tmp_path / "out", small, tmp_path / "scratch")
    assert "search: epochs 1/1" in capsys.readouterr().err
    before = outputs(tmp_path / "out")
    search(packed, tmp_path / "out", small, tmp_path / "scratch")
    assert "search: epochs" not in capsys.readouterr().err
    assert outputs(tmp_path / "out") == before


def test_nothing_under_the_gate(packed: Path, params: Params, tmp_path: Path) -> None:
    tight = replace(params, contest=replace(params.contest, max_macs=1000))
    with pytest.raises(ParamsError) as caught:
        search(packed, tmp_path / "out", tight, tmp_path / "scratch")
    assert caught.value.problem.startswith(
        "the space tiny has nothing under contest.max_macs = 1,000: of "
    )
    assert caught.value.fix == "raise contest.max_macs, or name a space of smaller networks"
    assert not (tmp_path / "out").exists()


class TestSwitchedOff:
    """The search takes the network that it is given."""

    @pytest.fixture
    def off(self, params: Params) -> Params:
        return with_search(params, enabled=False, network="brought.yaml")

    @pytest.fixture(autouse=True)
    def brought(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        Path("brought.yaml").write_text(BROUGHT)
        return Path("brought.yaml")

    def test_it_is_written_as_it_is(self, packed: Path, off: Params, brought: Path) -> None:
        write_json(Path("out/trials.json"), {})  # of an earlier run
        search(packed, Path("out"), off, Path("scratch"))
        assert list(outputs(Path("out"))) == ["network.yaml"]
        assert read_spec(Path("out/network.yaml")) == read_spec(brought)

    def test_a_shipped_one_goes_by_its_name(self, packed: Path, off: Params) -> None:
        with pytest.raises(ParamsError) as caught:
            search(packed, Path("out"), with_search(off, network="small"), Path("scratch"))
        assert caught.value.problem == (
            "small takes [64, 64] pixels; prepare.sizes has [24, 32], [32, 32]"
        )
        assert caught.value.fix == "add [64, 64] to prepare.sizes in params.yaml"
        assert shipped("small").exists()

    def test_over_the_gate(self, packed: Path, off: Params, brought: Path) -> None:
        macs = cost(read_spec(brought), 9).macs
        exact = replace(off, contest=replace(off.contest, max_macs=macs))
        search(packed, Path("out"), exact, Path("scratch"))
        under = replace(off, contest=replace(off.contest, max_macs=macs - 1))
        with pytest.raises(ParamsError) as caught:
            search(packed, Path("out"), under, Path("scratch"))
        assert caught.value.problem == (
            f"brought.yaml has {macs:,} MACs, contest.max_macs is {macs - 1:,}"
        )
