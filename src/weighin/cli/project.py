"""The commands about a project: what comes in, what it holds, its proof, its machine and cluster.

import, pack-data, demo-data, weights, fetch; check, explain, reset, sign, verify; doctor,
scheduler, worker, certificates.
"""

import contextlib
import difflib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weighin.cli import ANY, EXISTING, cli
from weighin.parallel import cores
from weighin.stage import PARAMS, NamedFile, named_files

if TYPE_CHECKING:
    from weighin.params import Params

LOOPBACK = "tcp://127.0.0.1:8786"


@cli.command()
def check() -> None:
    """Check params.yaml before any work: types, ranges, names, files and the device it names.

    \b
    weighin check
    """
    from weighin.data.import_index import told_copies
    from weighin.errors import DataError
    from weighin.params import load

    params = load(PARAMS)
    if params.recipe.device != "cpu":  # torch takes two seconds
        from weighin.training.device import require_device

        require_device(params.recipe)
    for file in named_files(params):
        if file.path is not None:
            click.echo(f"{file.parameter}: {_checked(file, params)}")
    with contextlib.suppress(DataError, OSError):  # it is the stages that need images
        for line in told_copies(Path("data")):
            click.echo(line)
    click.echo(f"{PARAMS} is well")


def _checked(file: NamedFile, params: "Params") -> str:
    """Return what is said of a file of one's own that a stage could read."""
    if file.parameter == "contest.score":
        from weighin.grading.score import Metrics, score

        half = Metrics(0.5, 0.5, params.contest.reference_macs, params.contest.reference_params)
        return f"{file.name} gives {score(params.contest, half).value:.4f} for {half}"
    if file.parameter == "search.space":
        from weighin.search.space import read_space

        space = read_space(file.name, list(params.prepare.sizes))
        return f"{file.name} holds {space.count():,} networks"
    if file.parameter == "train.weights":
        return _checked_weights(Path(file.name), params)
    from weighin.search.stages import check_network

    _, cost = check_network(file.name, params.prepare.sizes, class_names()[0], params)
    return f"{file.name} has {cost.macs:,} MACs"


def _checked_weights(path: Path, params: "Params") -> str:
    """Return what is said of weights, which must fit a network that is not searched for."""
    from weighin.search.stages import check_network
    from weighin.training.weights import OWN_FIX, initial_weights, read_weights

    held = f"{path} holds {len(read_weights(path, OWN_FIX)):,} arrays"
    name = params.search.network
    if params.search.enabled or not name:
        return f"{held}, which must fit the network that the search chooses"
    classes, _ = class_names()
    spec, _ = check_network(name, params.prepare.sizes, classes, params)
    initial_weights(path, spec, len(classes), "check", trained=params.train.epochs > 0)
    return f"{held}, which fit {name}"


def class_names() -> tuple[list[str], str]:
    """Return the classes of the data, and what says so; else as many as the waste contest has."""
    from weighin.data.shards import open_images
    from weighin.errors import DataError
    from weighin.files import read_json

    packed, folders = Path("work/prepare/classes.json"), Path("data/train")
    if packed.is_file():
        return list(read_json(packed)), str(packed)
    with contextlib.suppress(DataError):
        if folders.is_dir():
            return list(open_images(folders).classes()), str(folders)
    names = [f"class {number}" for number in range(9)]
    return names, "the waste contest's, as there are no data here; --classes N for others"


@cli.command()
def doctor() -> None:
    """Say whether this machine will rebuild the same bytes, and what it lacks.

    \b
    weighin doctor
    """
    from weighin.doctor import examine
    from weighin.errors import MachineError

    findings = []
    for finding in examine(Path()):
        findings.append(finding)
        click.echo(str(finding))
    faults = ", ".join(dict.fromkeys(one.topic for one in findings if one.level == "FAULT"))
    if faults:
        raise MachineError(
            f"this machine may compute other bytes than the promised ones: {faults}",
            "do what the lines above say, or rebuild elsewhere; grading needs no promised bytes",
        )
    click.echo("this machine will rebuild the same bytes")


@cli.command()
def reset() -> None:
    """Put params.yaml back to the committed one, as after `dvc exp run -S`; yours is kept.

    \b
    weighin reset
    """
    from weighin.errors import DataError
    from weighin.files import sha256, write_bytes
    from weighin.machine import require_trusted

    done = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)
    if done.returncode:
        require_trusted(Path())
        problem = f"the last commit has no {PARAMS}"
        raise DataError(problem, f"git add {PARAMS} && git commit; then a change can be taken back")
    now, committed = PARAMS.read_bytes() if PARAMS.is_file() else b"", done.stdout
    if now == committed:
        click.echo(f"{PARAMS} is the committed one already")
        return
    kept = Path(f".weighin/reset/params-{sha256(now)[:8]}.yaml")  # no other content has this name
    write_bytes(kept, now)
    write_bytes(PARAMS, committed)
    before, after = (text.decode(errors="replace").splitlines() for text in (now, committed))
    for line in difflib.ndiff(before, after):
        if line.startswith(("+ ", "- ")):
            click.echo(line)
    click.echo(f"{PARAMS} is the committed one again; yours is kept as {kept}")


@cli.command()
@click.argument("key", type=EXISTING)
@click.option("--provenance", type=ANY, default="submission/provenance.json", show_default=True)
@click.option("--without-commit", is_flag=True, help="Sign what no commit holds.")
def sign(key: Path, provenance: Path, without_commit: bool) -> None:
    """Sign the provenance with an ed25519 key; the signed copy names its commit and image.

    \b
    weighin sign ~/.keys/weighin.pem
    """
    from weighin.errors import MismatchError
    from weighin.report.signing import observe_build, sign

    build = observe_build(Path())
    if build.commit is None and not without_commit:
        problem = "no commit holds what would be signed: no Git repository, or tracked files differ"
        raise MismatchError(problem, "commit everything, then sign; or pass --without-commit")
    signed = sign(provenance, key, build)
    click.echo(f"signed: {signed}, commit {build.commit or 'unknown'}")


@cli.command()
@click.option("--stage", help="Rebuild one stage alone, on the inputs that lie here.")
@click.option("--workers", type=click.IntRange(1), help="Processes; they change no byte.")
@click.option("--signature", type=EXISTING, help="Check a signed provenance instead.")
@click.option("--key", type=EXISTING, help="The signer's public ed25519 key.")
@click.option("--allow-unportable", is_flag=True, help="Go on where the bytes must differ.")
def verify(
    stage: str | None,
    workers: int | None,
    signature: Path | None,
    key: Path | None,
    allow_unportable: bool,
) -> None:
    """Rebuild the last commit without any cache and compare every output with dvc.lock.

    \b
    weighin verify
    weighin verify --stage train --workers 1
    weighin verify --signature submission/provenance.dsse.json --key signer.pub.pem
    """
    if signature is not None:
        _verify_signature(signature, key)
        return
    if key is not None:
        raise click.UsageError("--key is of a signature: name it with --signature")
    from weighin.machine import ALLOW, require_portable
    from weighin.verification import verify

    if allow_unportable:
        os.environ[ALLOW] = "1"  # for the stages too
    require_portable()
    proof = verify(Path(), stage, workers)
    for line in proof.table():
        click.echo(line)
    proof.check()
    click.echo("same: every output is what dvc.lock records")


def _verify_signature(envelope: Path, key: Path | None) -> None:
    from weighin.report.signing import metadata_of, verify_signature

    if key is None:
        raise click.UsageError("--signature needs --key, the signer's public key")
    build = metadata_of(verify_signature(envelope, key))
    click.echo(f"the signature holds, and so does every file; commit {build.commit or 'unknown'}")


@cli.command()
@click.argument("folder", type=ANY, default="work/search")
@click.option("--journal", type=ANY, help="Write the study to this new file, for optuna-dashboard.")
def explain(folder: Path, journal: Path | None) -> None:
    """Say why this network was chosen and what the next best was.

    \b
    weighin explain
    weighin explain work/tune --journal study.log
    """
    from weighin.search.trials import explain

    click.echo(explain(folder))
    if journal is not None:
        from weighin.search.trials import write_journal

        write_journal(folder, journal)


@cli.command()
@click.argument("address", default=LOOPBACK)
def scheduler(address: str) -> None:
    """Give out the work of searches, at an address, until stopped.

    It and its workers execute what anybody sends them who can connect. So it serves this machine
    alone, or, at a tls:// address, who has the certificates of `weighin certificates`.

    \b
    weighin scheduler
    weighin scheduler tls://0.0.0.0:8786
    """
    from weighin.search.workers import scheduler_command

    command = scheduler_command(address)
    os.execv(command[0], command)


@cli.command()
@click.argument("address", default=LOOPBACK)
@click.option("--processes", type=click.IntRange(1), help="Workers; one a core by default.")
def worker(address: str, processes: int | None) -> None:
    """Work for searches through the Dask scheduler at an address, until stopped.

    Run it in the project's folder, on a disk that all workers and the search share.

    \b
    weighin scheduler &
    weighin worker tcp://127.0.0.1:8786
    dvc repro  # with search.cluster and tune.cluster, or WEIGHIN_CLUSTER, naming that address
    """
    from weighin.search.workers import worker_command

    command = worker_command(address, processes)
    os.execv(command[0], command)


@cli.command()
@click.argument("folder", type=ANY, default=".weighin/certificates")
def certificates(folder: Path) -> None:
    """Make the certificates by which the machines of a cluster know each other.

    Copy the folder to .weighin/certificates of each, or name it in WEIGHIN_CERTIFICATES; whoever
    has key.pem can run programs on all of them.

    \b
    weighin certificates
    weighin scheduler tls://0.0.0.0:8786
    weighin worker tls://host:8786
    """
    from weighin.search.workers import make_certificates

    make_certificates(folder)
    click.echo(f"{folder}/key.pem is a secret: copy the folder to the cluster's machines alone")


@cli.command("import")
@click.argument("source", type=EXISTING)
@click.option("--images", type=EXISTING, help="Folder of the images that a CSV or COCO file names.")
@click.option("--filename-column", help="Column of a CSV; guessed when left out.")
@click.option("--class-column", help="Column of a CSV, or field of Label Studio; else guessed.")
@click.option("--group-column", help="Images of one group stay in one split.")
@click.option("--split-column", help="Says train, validation or test; none: choose a split.")
@click.option("--classes", type=click.Choice(["outer", "inner"]), help="Class folders of a tree.")
@click.option("--mapping", type=EXISTING, help="CSV from category to class.")
@click.option("--margin", type=click.FloatRange(0, 2), default=0.1, show_default=True)
@click.option("--boxes", type=click.Choice(["stored", "upright"]), help="Pixels of COCO boxes.")
@click.option("--validation", type=EXISTING, help="Folder of class folders to validate on.")
@click.option("--test", type=EXISTING, help="Test images, in class folders or not.")
@click.option("--truth", type=EXISTING, help="CSV of the test images' classes.")
@click.option("--keep-test/--no-test", default=True, help="Keep the test of the import before.")
@click.option("--force", is_flag=True, help="Move a data/ of your own to data.before-N.")
@click.option("--record/--no-record", default=True, help="Record data/ in data.dvc with DVC.")
def import_command(
    source: Path,
    *,
    filename_column: str | None,
    class_column: str | None,
    group_column: str | None,
    split_column: str | None,
    force: bool,
    record: bool,
    **options: Any,
) -> None:
    """Bring a data set in as data/: a folder of class folders, a CSV, or a COCO file.

    \b
    weighin import photos --test photos/public --truth photos/public_truth.csv
    weighin import labels.csv --images photos
    weighin import annotations.json --mapping categories.csv
    """
    from weighin.data import versioning
    from weighin.data.importing import Options, import_data
    from weighin.label_csv import Columns

    if record:
        versioning.check_recordable(Path())
    columns = Columns(filename_column, class_column, group_column, split_column)
    report = import_data(source, Path("data"), Options(columns=columns, **options), force)
    for line in _arrived(report):
        click.echo(line)
    if record:
        click.echo(f"recorded in {versioning.record(Path())}; next: dvc repro")


def _arrived(report: dict[str, Any]) -> list[str]:
    """Return what came in and what did not, in words."""
    classes = ", ".join(f"{name} {many:,}" for name, many in report["classes"].items())
    lines = [f"{report['images']:,} images of {len(report['classes'])} classes: {classes}"]
    if report["validation"]:
        lines.append(f"{report['validation']:,} of them are the validation split that came with it")
    if report["missing"]:
        lines.append(f"missing: {len(report['missing']):,}, such as {report['missing'][0]}")
    lines += [
        f"{many:,} left out: {reason}, such as {report['such_as'][reason]}"
        for reason, many in report["skipped"].items()
    ]
    if "test" in report:
        test = report["test"]
        unlabelled = test.get("without_truth", test["images"])
        known = f"; {unlabelled:,} have no known class" if unlabelled else ""
        lines.append(f"{test['images']:,} test images{known}")
    return [*lines, *report["notes"], "all of it in data/import.json"]


@cli.command("pack-data")
@click.option("--shard-mb", type=click.IntRange(1), default=128, show_default=True)
@click.option("--record/--no-record", default=True, help="Record data/ in data.dvc with DVC.")
def pack_data(shard_mb: int, record: bool) -> None:
    """Put the images of data/train into a few tar files: DVC's cost goes by files.

    The layout is WebDataset's. prepare reads the images there and writes the same bytes as before;
    train.csv, the test and its truth stay.

    \b
    weighin pack-data
    """
    from weighin.data import versioning
    from weighin.machine import output

    committed = False
    if record:
        versioning.check_recordable(Path())
        committed = output("git", "diff", "--quiet", "HEAD", "--", "data.dvc") is not None
    for line in versioning.pack_data(Path("data"), shard_mb * 10**6, cores()):
        click.echo(line)
    if record:
        back = "git checkout data.dvc, then weighin fetch" if committed else "import the data again"
        click.echo(f"recorded in {versioning.record(Path())}; next: dvc repro. To go back: {back}")


@cli.command("demo-data")
@click.argument("folder", type=ANY, default="data")
@click.option("--count", default=1500, show_default=True, help="Images, train and test together.")
@click.option("--size", default=96, show_default=True, help="Pixels a side.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; one a core.")
def demo_data(folder: Path, count: int, size: int, seed: int, workers: int | None) -> None:
    """Draw the default data set: nine kinds of waste, the same bytes on every machine.

    \b
    weighin demo-data
    weighin demo-data /tmp/many --count 100000 --size 32
    """
    from weighin.data.demo import draw_demo

    counts = draw_demo(folder, count, size, seed, workers or cores())
    click.echo(f"{sum(counts.values()):,} images of {len(counts)} classes in {folder}")


@cli.command()
@click.argument("source", metavar="NAME|FILE")
@click.option("--name", help="What it is to be called here: weights/NAME.safetensors.")
@click.option("--license", help="Of a file of your own; it is recorded.")
@click.option("--force", is_flag=True, help="Replace other weights of the same name.")
@click.option("--record/--no-record", default=True, help="Record the weights with DVC.")
def weights(source: str, name: str | None, license: str | None, force: bool, record: bool) -> None:
    """Bring pretrained weights in as weights/NAME.safetensors, with source and license.

    \b
    weighin weights efficientnet-lite0
    weighin weights mobilenet_v3_small
    weighin weights mine.pth --license CC-BY-4.0
    """
    from weighin.pretrained import FOLDER, bring

    facts = bring(source, name, license, force, record)
    click.echo(f"{facts['path']}: {facts['parameters']:,} numbers, license {facts['license']}")
    if record:
        click.echo(f"recorded in {facts['path']}.dvc; for Git: git add {FOLDER}")


@cli.command()
def fetch() -> None:
    """Bring data/ and weights/ to what is recorded: from the cache, a remote, or their source.

    \b
    weighin fetch
    """
    from weighin.data.demo import DEFAULT_MD5, draw_demo
    from weighin.data.versioning import fetch

    click.echo(fetch(Path(), DEFAULT_MD5, lambda folder: draw_demo(folder, workers=cores())))
    if Path("weights").is_dir():
        from weighin import pretrained

        for line in pretrained.fetch(Path()):
            click.echo(line)
