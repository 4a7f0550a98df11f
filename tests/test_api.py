"""`import weighin`: what a notebook user meets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor, nn

import weighin
from tests.small_models import CLASSES, COLOURS, make_model
from weighin.errors import NetworkError
from weighin.network.spec import shipped

ROOT = Path(__file__).parents[1]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Names the strongest color of a picture."""
    (tmp_path / "model.onnx").write_bytes(make_model().SerializeToString())
    return tmp_path / "model.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in CLASSES:
        Image.new("RGB", (9, 9), COLOURS[name]).save(tmp_path / f"photos/{name}.png")
    return tmp_path / "photos"


def test_importing_it_loads_nothing() -> None:
    code = "import sys, weighin; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "weighin" in loaded
    assert not loaded & {"torch", "numpy", "pydantic", "onnx", "click", "dvc"}


def test_it_offers_what_it_says() -> None:
    assert dir(weighin) == sorted(weighin.__all__)
    for name in weighin.__all__:
        assert name in (weighin.__doc__ or "")
        assert callable(getattr(weighin, name))
    with pytest.raises(AttributeError, match="no attribute 'counts'"):
        _ = weighin.counts


def test_counts_of_rows_an_onnx_file_and_a_module(model: Path) -> None:
    rows = weighin.count(shipped("seed"))
    assert (rows.macs, rows.parameters) == (1_776_949, 246_893)
    assert weighin.count(str(shipped("seed")), classes=3).macs < rows.macs
    assert weighin.count(model).macs == 204
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    # 27 products and a bias for each of 4 x 6 x 6 outputs; 144 products and a bias for each of 2
    assert weighin.count(module, size=(8, 8)).macs == 28 * 144 + 145 * 2
    assert weighin.count("seed") == rows  # by its name, as `weighin count` has it
    for size in (None, 32, (8,), (8, 0)):
        with pytest.raises(weighin.WeighinError) as caught:
            weighin.count(module, size=size)  # type: ignore[arg-type]
        assert caught.value.problem.endswith(f"its size is {size}")
        assert caught.value.fix == "pass size=(height, width)"


def test_a_layer_that_is_called_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(input=x)  # type: ignore[no-any-return]

    assert weighin.count(Named(), size=(8, 8)).macs == 28 * 144


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Conv2d(1, 4, 3), "to have 1 channels, but got 3 channels"),
        (nn.Conv2d(3, 4, 3).half(), "float"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), "shapes cannot be multiplied"),
        ([nn.Conv2d(3, 4, 3)], "'list' object has no attribute"),
    ],
)
def test_a_module_that_takes_other_images(module: nn.Module, words: str) -> None:
    with pytest.raises(NetworkError) as caught:
        weighin.count(module, size=(8, 8))
    told = "the module does not run on images (1, 3, 8, 8), float32: "
    assert caught.value.problem.startswith(told) and words in caught.value.problem
    assert caught.value.fix.startswith("pass an nn.Module, and the size that it takes")


def test_hidden_work_is_refused() -> None:
    class Sly(nn.Conv2d):
        pass

    with pytest.raises(weighin.WeighinError, match="hidden from the rule"):
        weighin.count(nn.Sequential(Sly(3, 4, 3)), size=(8, 8))
    with pytest.raises(weighin.WeighinError, match="has no price for native_layer_norm") as caught:
        weighin.count(nn.Sequential(nn.LayerNorm(8)), size=(8, 8))
    assert "export it (torch.onnx.export) and count the file" in caught.value.fix


def test_grading_and_scoring_agree(tmp_path: Path, model: Path, photos: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "filename,class\nblue.png,blue\ngreen.png,green\nred.png,blue\n"
    )
    facts = weighin.grade(model, photos, tmp_path / "out", truth=tmp_path / "truth.csv")
    assert facts == json.loads((tmp_path / "out/grade.json").read_text())
    found = weighin.score(tmp_path / "out/submission.csv", tmp_path / "truth.csv", model)
    assert found.f1 == facts["quality"]["f1"]
    assert found.score == facts["quality"]["score"]["value"]
    assert (found.accuracy, found.macs) == (2 / 3, 204)


def test_a_score_of_ones_own_is_run_only_when_told(
    tmp_path: Path, model: Path, photos: Path
) -> None:
    rules = tmp_path / "params.yaml"
    rules.write_text((ROOT / "params.yaml").read_text().replace("score: waste", "score: s.py"))
    (tmp_path / "s.py").write_text("def score(contest, metrics): return {'macs': metrics.macs}\n")
    (tmp_path / "truth.csv").write_text("filename,class\nblue.png,blue\n")
    given = {"truth": tmp_path / "truth.csv", "contest": rules}
    with pytest.raises(weighin.WeighinError, match=r"s\.py"):
        weighin.grade(model, photos, tmp_path / "out", **given)
    facts = weighin.grade(model, photos, tmp_path / "out", **given, own_score=True)
    assert facts["quality"]["score"] == {"parts": {"macs": 204}, "value": 204}
    assert facts["quality"]["contest"]["score"] == "s.py"  # no path of this machine
    table = tmp_path / "out/submission.csv"
    with pytest.raises(weighin.WeighinError, match=r"s\.py"):
        weighin.score(table, tmp_path / "truth.csv", model, rules)
    assert weighin.score(table, tmp_path / "truth.csv", model, rules, own_score=True).score == 204


def test_an_error_of_the_grader_is_an_error_here(tmp_path: Path, model: Path) -> None:
    with pytest.raises(weighin.WeighinError) as caught:
        weighin.grade(model, tmp_path / "none", tmp_path / "out")
    assert str(tmp_path / "none") in caught.value.problem
    assert caught.value.fix
    assert not (tmp_path / "out/grade.json").exists()


def test_metrics_of_a_submission(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"f1": 0.5}')
    assert weighin.metrics(tmp_path) == {"f1": 0.5}
    with pytest.raises(weighin.WeighinError) as caught:
        weighin.metrics(tmp_path / "none")
    assert "none/metrics.json" in caught.value.problem
    assert "dvc repro" in caught.value.fix


def test_verify_names_what_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, env=environment, check=True)
    with pytest.raises(weighin.WeighinError, match=r"no dvc\.lock"):
        weighin.verify(tmp_path)
