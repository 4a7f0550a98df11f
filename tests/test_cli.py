"""The command line: help that teaches, errors that fix, exit codes, nothing printed twice."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.small_models import make_model
from weighin.cli import cli, commands
from weighin.errors import MismatchError, ModelError, WeighinError
from weighin.network.build import build
from weighin.network.spec import read_spec
from weighin.training.weights import module_weights, write_weights

ROOT = Path(__file__).parents[1]
WEIGHIN = [sys.executable, "-c", "from weighin.cli import main; main()"]


def weighin(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **more}
    return subprocess.run(
        [*WEIGHIN, *arguments], cwd=folder, capture_output=True, text=True, env=env
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Mean colour, then a matrix: red is called a, green b, blue c."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], name="head", transB=1),
    ]
    tensors = {"w": np.eye(3, dtype=np.float32), "b": np.zeros(3, np.float32)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(v, name) for name, v in tensors.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"classes": json.dumps(["a", "b", "c"]), "fallback": "b", "turn_tall": "false"}
    helper.set_model_props(proto, facts)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("1.png", (255, 0, 0)), ("2.png", (0, 255, 0)), ("3.png", (0, 0, 255))):
        Image.new("RGB", (9, 9), colour).save(folder / name)
    (folder / "4.png").write_bytes(b"")
    return folder


def test_every_command_says_what_it_does_with_an_example():
    for name, command in commands().commands.items():
        group = getattr(command, "commands", {})
        every = {f"{name} {part}": inner for part, inner in group.items()} or {name: command}
        for path, one in every.items():
            assert f"weighin {path}" in (one.help or ""), path
        assert command.help.splitlines()[0].endswith((".", ":"))


def test_help_names_every_exit_code():
    codes = {c.exit_code for c in (*WeighinError.__subclasses__(), MismatchError)} - {3}
    named = {int(code) for code in re.findall(r"\b(\d+) [a-z]", cli.help)}
    assert codes <= named
    assert {0, 2, 130} <= named


def test_version_names_what_decides_the_bytes(tmp_path):
    done = weighin(tmp_path, "--version")
    pattern = r"weighin \S+, torch \S+, instruction set avx2, image none\n"
    assert re.fullmatch(pattern, done.stdout)


def test_wrong_usage(tmp_path):
    done = weighin(tmp_path, "predict")
    assert done.returncode == 2
    assert "Missing argument 'MODEL'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_without_a_signature_is_wrong_usage(tmp_path):
    (tmp_path / "signer.pub.pem").write_text("x")
    done = weighin(tmp_path, "verify", "--key", "signer.pub.pem")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--key is of a signature: name it with --signature" in done.stderr


def test_predict_and_score(tmp_path, model, photos):
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "labels.csv")
    assert (done.returncode, done.stdout) == (0, "4 labels in labels.csv; unreadable: 1\n")
    text = (tmp_path / "labels.csv").read_text()
    assert text == "filename,class\n1.png,a\n2.png,b\n3.png,c\n4.png,b\n"
    (tmp_path / "truth.csv").write_text("filename,class\n1.png,a\n2.png,b\n3.png,c\n4.png,c\n")
    done = weighin(tmp_path, "score", "labels.csv", "truth.csv", "model.onnx")
    # a 1, b 2/3, c 2/3: 7/9; pooling 192, the matrix 9 and its bias 3: 204 MACs
    assert (
        done.stdout
        == f"macro F1 0.7778, 204 MACs, score {204 / 13_865_375 + 1 - 7 / 9 / 0.83656:.4f}\n"
    )


def test_score_in_a_project_of_other_rules_says_whose_it_gives(tmp_path, model):
    (tmp_path / "labels.csv").write_text("filename,class\n1.png,a\n2.png,b\n3.png,b\n")
    ours = (ROOT / "params.yaml").read_text()
    command = ("score", "labels.csv", "labels.csv", "model.onnx")
    for text in ("seed: x\n", ours):
        (tmp_path / "params.yaml").write_text(text)
        assert weighin(tmp_path, *command).stderr == ""
    assert "  score: waste " in ours
    (tmp_path / "params.yaml").write_text(ours.replace("  score: waste ", "  score: f1 "))
    done = weighin(tmp_path, *command)
    assert done.stderr == (
        "this score is the waste contest's; --contest params.yaml scores by this project's rules\n"
    )
    assert weighin(tmp_path, *command, "--contest", "params.yaml").stderr == ""


def test_count_refuses_options_that_say_nothing(tmp_path, model):
    done = weighin(tmp_path, "count", "model.onnx", "--classes", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "an ONNX file has its own outputs: leave out --classes" in done.stderr
    done = weighin(tmp_path, "count", "small", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json is for an ONNX file: leave it out" in done.stderr
    assert weighin(tmp_path, "count", "small", "--classes", "0").returncode == 2


def test_score_says_which_classes_of_a_submission_cost_it(tmp_path, model):
    (tmp_path / "labels.csv").write_text("filename,class\n1.png,a\n2.png,Weird\n")
    (tmp_path / "truth.csv").write_text("filename,class\n1.png,a\n2.png,b\n")
    done = weighin(tmp_path, "score", "labels.csv", "truth.csv", "model.onnx")
    note, figures = done.stdout.splitlines()
    assert note == (
        "1 images of labels.csv have a class that the model does not know (Weird): "
        "they count as errors"
    )
    wrapped = ("wrap", "model.onnx", "metal.onnx", "--classes", "métal,glass,paper")
    assert weighin(tmp_path, *wrapped).returncode == 0
    (tmp_path / "labels.csv").write_text("filename,class\n1.png,METAL\n2.png,glass\n")
    (tmp_path / "truth.csv").write_text("filename,class\n1.png,glass\n2.png,glass\n")
    said = weighin(tmp_path, "score", "labels.csv", "truth.csv", "metal.onnx").stdout
    assert "(METAL; did you mean métal?)" in said  # case aside
    (tmp_path / "labels.csv").write_text("filename,class\n1.png,a\n2.png,Weird\n")
    assert figures.startswith("macro F1 0.3333, 204 MACs")


def test_predict_of_one_image_and_probabilities(tmp_path, model, photos):
    done = weighin(tmp_path, "predict", "model.onnx", "photos/2.png")
    assert (done.returncode, done.stdout) == (0, "filename,class\n2.png,b\n")
    done = weighin(tmp_path, "predict", "model.onnx", "photos/2.png", "--probabilities")
    header, row = done.stdout.splitlines()
    assert header == "filename,class,a,b,c"
    shares = [float(part) for part in row.split(",")[2:]]
    assert sum(shares) == pytest.approx(1, abs=2e-4)
    assert max(shares) == shares[1]
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "all.csv", "--probabilities")
    assert (tmp_path / "all.csv").read_text().splitlines()[-1] == "4.png,b,nan,nan,nan"
    done = weighin(tmp_path, "predict", "model.onnx", "photos/4.png")
    assert done.returncode == 5
    assert "4.png" in done.stderr


def test_score_of_labels_that_lack_a_file(tmp_path, model):
    (tmp_path / "labels.csv").write_text("filename,class\n1.png,a\n")
    (tmp_path / "truth.csv").write_text("filename,class\n1.png,a\n2.png,b\n")
    done = weighin(tmp_path, "score", "labels.csv", "truth.csv", "model.onnx")
    assert done.returncode == 5
    assert done.stderr == (
        "error: the truth names 1 files that labels.csv lacks, such as 2.png\n"
        "  to fix: label the folder that truth.csv is about with `weighin predict`\n"
    )


def test_strict_fails_and_writes_nothing(tmp_path, model, photos):
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "labels.csv", "--strict")
    assert done.returncode == 5
    assert not (tmp_path / "labels.csv").exists()


def test_blocks_lists_every_block_with_a_row_that_counts(tmp_path):
    from weighin.network.blocks import BLOCKS

    done = weighin(tmp_path, "blocks")
    assert (done.returncode, done.stderr) == (0, "")
    parts = done.stdout.split("\n\n")[1:]
    assert [part.partition(":")[0] for part in parts] == list(BLOCKS)
    # 16 x 3 x 3 products and no bias for each of 24 x 16 x 16 outputs; 2 for the batch norm
    assert "[1, Conv, [24, 3, 2]]  # 897,024 MACs" in parts[0]
    assert (16 * 9 + 2) * 24 * 16 * 16 == 897_024
    assert "k=1                  # pixels, 1 to 31: side of the kernel" in parts[0]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def change(project, *pairs):
    text = (project / "params.yaml").read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    (project / "params.yaml").write_text(text)


ROWS = """\
input: [48, 48]
width: 1.0
rows:
- [1, Conv, [8, 3, 2, null, 1, ReLU]]
- [1, GlobalAvgPool, []]
- [1, Flatten, []]
- [1, Linear, [classes]]
"""
OWN_ROWS = (("enabled: true      # false takes", "enabled: false    # false takes"),)
OWN_ROWS += (("network: null", "network: net.yaml"),)


def test_check_opens_the_files_that_parameters_name(project):
    change(project, *OWN_ROWS, ("score: waste", "score: my_score.py"))
    (project / "net.yaml").write_text(ROWS)
    (project / "my_score.py").write_text("def score(contest, metrics): return metrics.f1\n")
    done = weighin(project, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "contest.score: my_score.py gives 0.5000" in done.stdout
    macs = re.search(r"search.network: net.yaml has ([0-9,]+) MACs", done.stdout)
    counted = CliRunner().invoke(commands(), ["count", str(project / "net.yaml")]).stdout
    assert f"{macs[1]} MACs with its batch norms folded" in counted


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "search.network is net.yaml"),
        (ROWS.replace("Conv", "Convv"), "did you mean Conv?"),
        (ROWS.replace("[48, 48]", "[40, 40]"), "net.yaml takes [40, 40] pixels"),
    ],
)
def test_check_names_a_file_that_is_no_network(project, rows, said):
    change(project, *OWN_ROWS)
    if rows is not None:
        (project / "net.yaml").write_text(rows)
    done = weighin(project, "check")
    assert done.returncode in (4, 6)
    assert said in done.stderr
    assert "to fix: " in done.stderr


def test_check_says_whether_weights_fit_the_network(project):
    change(project, *OWN_ROWS, ("weights: null", "weights: mine.safetensors"))
    (project / "net.yaml").write_text(ROWS)
    own = module_weights(build(read_spec(project / "net.yaml"), 9))
    first = next(name for name, array in own.items() if array.ndim == 4)
    write_weights(project / "mine.safetensors", own)
    done = weighin(project, "check")
    assert (done.returncode, done.stderr) == (0, "")
    told = f"train.weights: mine.safetensors holds {len(own)} arrays, which fit net.yaml\n"
    assert told in done.stdout
    for weights, problem in (
        ({k: v for k, v in own.items() if k != first}, f"1 missing ({first})"),
        (own | {first: own[first] * np.float32(np.nan)}, f"1 not finite ({first})"),
        (own | {first: own[first].astype(np.float16)}, f"{first} is float16, not float32"),
    ):
        write_weights(project / "mine.safetensors", weights)
        done = weighin(project, "check")
        assert done.returncode == 6
        assert problem in done.stderr
        assert "to fix: set train.weights to a file of float32 safetensors" in done.stderr


def test_check_opens_a_space(project):
    change(project, ("space: small", "space: mine.yaml"))
    (project / "mine.yaml").write_text("rows: 3\n")
    done = weighin(project, "check")
    assert done.returncode == 4
    assert "mine.yaml: " in done.stderr


def test_reset_takes_back_what_an_experiment_changed_and_keeps_it(project):
    committed = (project / "params.yaml").read_bytes()
    alone = weighin(project, "reset")
    assert alone.returncode == 5
    assert "no params.yaml" in alone.stderr
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    assert "already" in weighin(project, "reset").stdout
    change(project, ("seed: 0", "seed: 7"))
    mine = (project / "params.yaml").read_bytes()
    done = weighin(project, "reset")
    assert (done.returncode, (project / "params.yaml").read_bytes()) == (0, committed)
    assert "- seed: 7" in done.stdout
    assert "+ seed: 0" in done.stdout
    (kept,) = (project / ".weighin/reset").iterdir()
    assert kept.read_bytes() == mine
    assert str(kept.relative_to(project)) in done.stdout
    # a repository of another user is not taken for one without a commit
    done = weighin(project, "reset", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.stderr == (
        "error: Git does not read this folder, which belongs to another user\n"
        f"  to fix: git config --global --add safe.directory {project}\n"
    )


def test_count_of_an_onnx_file(tmp_path, model):
    done = weighin(tmp_path, "count", "model.onnx", "--layers")
    assert done.stdout.splitlines() == [
        "         192  GlobalAveragePool  pool",
        "           0  Flatten            flatten",
        "          12  Gemm               head",
        "204 MACs, 12 parameters",
        "the work of one image",
    ]


def test_a_model_that_crashes_onnx_is_told_as_an_error(tmp_path):
    """A slice of a side of less than nothing aborts the process in ONNX 1.23's shape inference."""
    import weighin as package

    nodes = [
        helper.make_node("Conv", ["images", "k"], ["less"], name="a"),
        helper.make_node("Slice", ["less", "one", "many", "two"], ["x"], name="b"),
    ]
    weights = {"k": np.zeros((3, 3, 10, 1)), "one": [1], "many": [2**62], "two": [2]}
    file = make_model(before=nodes, weights=weights).SerializeToString()
    (tmp_path / "crash.onnx").write_bytes(file)
    (tmp_path / "t.csv").write_text("filename,class\na.png,red\n")
    for command in (
        ("count", "crash.onnx"),
        ("wrap", "crash.onnx", "--classes", "a,b,c"),
        ("score", "t.csv", "t.csv", "crash.onnx"),
    ):
        done = weighin(tmp_path, *command)
        assert done.returncode == 8, done.stderr
        assert "error: it crashed ONNX Runtime (SIGABRT)\n  to fix: " in done.stderr
    with pytest.raises(ModelError, match="it crashed"):
        package.count(tmp_path / "crash.onnx")


def test_count_of_rows(tmp_path):
    from weighin.network.spec import shipped

    by_path = weighin(tmp_path, "count", str(shipped("seed"))).stdout
    by_name = CliRunner().invoke(commands(), ["count", "seed"]).stdout
    assert by_path.splitlines() == [
        "1,838,558 MACs, 250,486 parameters",
        "1,776,949 MACs with its batch norms folded",
        "1,702,220 MACs of convolutions and linear layers by ptflops",
    ]
    assert by_name == by_path
    for name in "ab":
        (tmp_path / "data/train" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "data/train" / name / "1.png")
    assert weighin(tmp_path, "count", "seed").stderr == "with 2 outputs (data/train)\n"
    assert "with 5 outputs" in weighin(tmp_path, "count", "seed", "--classes", "5").stderr


def test_count_of_weights_says_how_to_export_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02")
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    for name in ("m.pt", "m.tflite"):
        done = weighin(tmp_path, "count", name)
        problem, fix = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (6, "")
        assert problem == f"error: {name} is neither a rows file nor a .onnx file"
        assert "torch.onnx.export(" in fix and "tf2onnx.convert --tflite" in fix


def test_count_of_rows_that_make_no_network_names_their_file(tmp_path):
    rows = "[1, Conv, [16, 3, 0]]", "[1, Nothing, []]"
    text = "input: [32, 32]\nwidth: 1.0\nrows:\n" + "".join(f"- {row}\n" for row in rows)
    (tmp_path / "net.yaml").write_text(text)
    done = weighin(tmp_path, "count", "net.yaml")
    first, second, fix = done.stderr.splitlines()
    assert done.returncode == 6
    assert first.startswith("error: net.yaml: row 1 (Conv): s is 0")
    assert second.strip().startswith("net.yaml: row 2: ")
    assert fix.startswith("  to fix: edit these rows")


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "nowhere.onnx"])
def test_count_of_nothing(tmp_path, name):
    done = weighin(tmp_path, "count", name)
    assert done.returncode == 6 and f"{name} does not exist" in done.stderr


def test_the_doctor_says_whether_this_machine_will_reproduce(tmp_path):
    done = weighin(ROOT, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "this machine will rebuild the same bytes"
    assert all(line.startswith(("ok ", "note ")) for line in lines[:-1])


def test_check_names_the_fault(tmp_path):
    done = weighin(tmp_path, "check")
    assert done.returncode == 4
    assert done.stderr == (
        "error: params.yaml does not exist\n"
        "  to fix: run this in the project's folder, or name an existing file\n"
    )


def test_explain_before_there_is_anything_to_explain(tmp_path):
    done = weighin(tmp_path, "explain")
    assert done.returncode == 5
    assert done.stderr.startswith("error: work/search/trials.json does not exist")


def test_fetch_without_a_record(tmp_path):
    done = weighin(tmp_path, "fetch")
    assert done.returncode == 5
    assert done.stderr == (
        "error: there is no data.dvc\n"
        "  to fix: bring a data set in with `weighin import FOLDER|CSV|COCO`\n"
    )


def test_completion_is_offered(tmp_path):
    import os

    env = {**os.environ, "_WEIGHIN_COMPLETE": "bash_source"}
    done = subprocess.run(WEIGHIN, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "complete -o nosort -F _weighin_completion weighin" in done.stdout


def test_predict_keeps_a_table_that_says_something_else(tmp_path, model, photos):
    (tmp_path / "truth.csv").write_text("filename,class\n1.png,a\n")
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "truth.csv")
    assert done.returncode == 0
    assert (
        "truth.csv was there and says something else; it is kept as truth.before-1" in done.stderr
    )
    assert (tmp_path / "truth.before-1.csv").read_text() == "filename,class\n1.png,a\n"
    again = weighin(tmp_path, "predict", "model.onnx", "photos", "truth.csv")
    assert "kept" not in again.stderr
    (tmp_path / "truth.csv").write_text("mine\n")
    assert (
        "truth.before-2" in weighin(tmp_path, "predict", "model.onnx", "photos", "truth.csv").stderr
    )
    assert len(list(tmp_path.glob("truth*.csv"))) == 3


def test_predict_says_what_it_cannot_read_and_refuses_a_folder_of_it(tmp_path, model, photos):
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "labels.csv")
    assert "1 of 4 files cannot be read" in done.stderr
    for name in ("5.png", "6.png", "7.png"):
        (tmp_path / "photos" / name).write_bytes(b"")
    (tmp_path / "labels.csv").unlink()
    done = weighin(tmp_path, "predict", "model.onnx", "photos", "labels.csv")
    assert done.returncode == 5
    assert done.stderr.startswith("error: photos: 4 of 7 files cannot be read: ")
    assert not (tmp_path / "labels.csv").exists()


def test_a_misspelt_command_is_told_the_nearest(tmp_path):
    done = weighin(tmp_path, "explai")
    assert done.returncode == 2 and "'explain'" in done.stderr
