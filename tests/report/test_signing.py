"""The signed copy: checked by OpenSSL too, and every way in which it can be wrong."""

import base64
import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from made_project import ROOT, make_params

from weighin.errors import DataError, MismatchError, ParamsError
from weighin.files import write_json, write_text
from weighin.machine import processor
from weighin.report.provenance import record_machine
from weighin.report.signing import (
    UNKNOWN,
    BuildMetadata,
    build_machine,
    metadata_of,
    observe_build,
    sign,
    verify_signature,
)

SCHEMA = json.loads(
    (Path(__file__).parent / "schemas/slsa-provenance-v1.json").read_text(encoding="utf-8")
)
# RFC 8410, section 10.3: the key pair of its examples
KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""
PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"sha256:{'ab' * 32}"


@pytest.fixture
def submission(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a whole submission to sign and to spoil; keys lie beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written, "submission")
    Path("key.pem").write_text(KEY, encoding="ascii")
    Path("public.pem").write_text(PUBLIC, encoding="ascii")
    return Path("submission")


@pytest.fixture
def build(submission: Path) -> BuildMetadata:
    """A Git commit of what the submission was made from, and an image."""
    write_json(Path("params.yaml"), dataclasses.asdict(make_params()))
    write_text(Path("data.dvc"), "outs:\n- md5: 0123456789abcdef.dir\n  path: data\n")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/weighin", "src/weighin", ignore=skip)
    lock_statement()
    write_text(Path(".gitignore"), "/submission/\n*.pem\n")
    git("init", "--quiet")
    return BuildMetadata(commit(), IMAGE)


def lock_statement() -> None:
    digest = hashlib.md5(Path("submission/provenance.json").read_bytes()).hexdigest()
    out = {"path": "submission/provenance.json", "md5": digest}
    write_json(Path("dvc.lock"), {"stages": {"report": {"outs": [out]}}})


def commit() -> str:
    git("add", "-A")
    git("commit", "--quiet", "-m", "change")
    return git("rev-parse", "HEAD")


def signed(submission: Path, build: BuildMetadata = UNKNOWN) -> Path:
    return sign(submission / "provenance.json", Path("key.pem"), build)


def verify(envelope: Path, key: str = "public.pem") -> dict[str, Any]:
    return verify_signature(envelope, Path(key))


def opened(envelope: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(envelope.read_text(encoding="utf-8"))
    return loaded


def test_signed_and_verified(submission: Path, build: BuildMetadata) -> None:
    envelope = signed(submission, build)
    assert envelope == submission / "provenance.dsse.json"
    facts = verify(envelope)
    jsonschema.validate(facts, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert [row["name"] for row in facts["subject"]] == [
        "submission.csv",
        "model.onnx",
        "provenance.json",
    ]
    assert facts["predicate"]["buildDefinition"]["resolvedDependencies"][-2:] == [
        {"name": "source", "digest": {"gitCommit": build.commit}},
        {"name": "image", "digest": {"sha256": "ab" * 32}},
    ]
    assert metadata_of(facts) == build
    assert metadata_of(verify(signed(submission))) == UNKNOWN


def test_without_a_witness_it_is_the_statement_and_its_file(submission: Path) -> None:
    facts = verify(signed(submission))
    facts["subject"].pop()
    assert facts == json.loads((submission / "provenance.json").read_text(encoding="utf-8"))


def test_signing_again_gives_the_same_bytes(submission: Path, build: BuildMetadata) -> None:
    first = signed(submission, build).read_bytes()
    assert signed(submission, build).read_bytes() == first
    Path("another").touch()
    assert signed(submission, BuildMetadata(commit())).read_bytes() != first


def edit_code() -> None:
    with Path("src/weighin/errors.py").open("a", encoding="utf-8") as file:
        file.write("\n")


def edit_params() -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'), encoding="utf-8")


def edit_data() -> None:
    write_text(Path("data.dvc"), "outs:\n- md5: fedcba9876543210.dir\n  path: data\n")


@pytest.mark.parametrize(
    ("edit", "lacking"),
    [
        (edit_code, "does not hold the src/weighin that submission/provenance.json names"),
        (edit_params, "does not hold the params that submission/provenance.json names"),
        (edit_data, "does not hold the data that submission/provenance.json names"),
        (
            lambda: Path("data.dvc").unlink(),
            "does not hold the data that submission/provenance.json names",
        ),
        (
            lambda: Path("dvc.lock").write_text("stages: {}\n"),
            "holds a dvc.lock of another submission/provenance.json",
        ),
        (
            lambda: Path("dvc.lock").unlink(),
            "holds a dvc.lock of another submission/provenance.json",
        ),
    ],
)
def test_a_commit_that_does_not_hold_what_is_stated_is_not_signed(
    submission: Path, build: BuildMetadata, edit: Callable[[], object], lacking: str
) -> None:
    """A build of one commit cannot be signed as another's."""
    edit()
    other = commit()
    with pytest.raises(MismatchError) as caught:
        signed(submission, BuildMetadata(other))
    assert caught.value.problem == f"commit {other[:12]} {lacking}"
    assert "dvc repro" in caught.value.fix
    assert not (submission / "provenance.dsse.json").exists()
    signed(submission, build)  # the commit that it was made from


def test_a_commit_that_is_not_there(submission: Path, build: BuildMetadata) -> None:
    with pytest.raises(MismatchError, match=f"{Path().absolute()} has no commit 0123456789ab"):
        signed(submission, BuildMetadata(COMMIT))


def test_a_statement_of_another_submission(submission: Path) -> None:
    envelope = signed(submission)
    for name in ("model.onnx", "submission.csv"):
        append(name)(submission)
    said = "the statement is of another submission: model.onnx and submission.csv are others"
    for check in (lambda: verify(envelope), lambda: signed(submission)):
        with pytest.raises(MismatchError) as caught:
            check()
        assert caught.value.problem == said


def test_a_changed_file_is_not_signed(submission: Path) -> None:
    append("report.html")(submission)
    with pytest.raises(MismatchError) as caught:
        signed(submission)
    assert str(caught.value) == changed("report.html")
    assert not (submission / "provenance.dsse.json").exists()


def test_what_is_named_twice_is_refused_by_name(submission: Path) -> None:
    path = submission / "provenance.json"
    envelope, text = signed(submission), path.read_text(encoding="utf-8")
    path.write_text(text.replace('"_type":', '"_type": "", "_type":'), encoding="utf-8")
    with pytest.raises(DataError, match=r'provenance\.json names "_type" twice'):
        signed(submission)
    facts = json.loads(text)
    facts["subject"].append(facts["subject"][0])
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match=r'provenance.json names "submission\.csv" twice'):
        signed(submission)
    path.write_text(text, encoding="utf-8")
    facts = opened(envelope)
    envelope.write_text(json.dumps(facts | {"signatures": facts["signatures"] * 2}))
    with pytest.raises(DataError, match=r'provenance\.dsse\.json names "a1e9156054e0'):
        verify(envelope)
    envelope.write_text(json.dumps(facts).replace('"payload":', '"payload": "", "payload":'))
    with pytest.raises(DataError, match=r'provenance\.dsse\.json names "payload" twice'):
        verify(envelope)


def test_the_machine_that_built_is_in_the_signed_copy(submission: Path) -> None:
    record_machine(submission / "provenance.json")
    facts = verify(signed(submission))
    machine = facts["predicate"]["buildDefinition"]["internalParameters"]["machine"]
    assert machine["processor"] == processor()
    assert machine["libraries"]["numpy"] == np.__version__
    assert "unportable" not in machine
    assert build_machine(submission / "provenance.json") == machine
    shutil.rmtree(".weighin")  # elsewhere only the signed copy tells it
    assert build_machine(submission / "provenance.json") == machine
    (submission / "provenance.dsse.json").unlink()
    assert build_machine(submission / "provenance.json") is None


def test_a_machine_record_of_another_build_is_not_signed(submission: Path) -> None:
    record_machine(submission / "model.onnx")
    facts = verify(signed(submission))
    assert "machine" not in facts["predicate"]["buildDefinition"]["internalParameters"]


def test_a_machine_that_computes_other_bytes_is_recorded(
    project: Path, report: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weighin.report.provenance.unportable", lambda: "no AVX2")
    statement = report() / "provenance.json"
    facts = json.loads(statement.read_text())["predicate"]["buildDefinition"]
    assert facts["internalParameters"]["unportable"] == "no AVX2"
    record_machine(statement)
    machine = build_machine(statement)
    assert machine is not None
    assert machine["unportable"] == "no AVX2"


def test_the_envelope_is_dsse_and_openssl_agrees(submission: Path) -> None:
    """The signature is over DSSE's encoding, here written out by hand."""
    facts = opened(signed(submission))
    assert set(facts) == {"payload", "payloadType", "signatures"}
    assert facts["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(facts["payload"])
    head = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode()
    Path("text").write_bytes(head + payload)
    Path("signature").write_bytes(base64.b64decode(facts["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "public.pem"]
    command += ["-in", "text", "-sigfile", "signature"]
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    Path("text").write_bytes(head + payload + b" ")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_key_is_named_by_its_hash(submission: Path) -> None:
    der = base64.b64decode("".join(PUBLIC.splitlines()[1:-1]))
    Path("der").write_bytes(der)
    found = subprocess.run(["sha256sum", "der"], capture_output=True, text=True, check=True)
    assert opened(signed(submission))["signatures"][0]["keyid"] == found.stdout.split()[0]


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")
def test_openssh_keys_do_too(submission: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "id"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    envelope = sign(submission / "provenance.json", Path("id"))
    assert verify(envelope, "id.pub")["_type"] == "https://in-toto.io/Statement/v1"
    with pytest.raises(MismatchError, match=r"was signed by \w{12}, not by public.pem \(a1e9156"):
        verify(envelope)


def edit_payload(submission: Path) -> None:
    facts = opened(submission / "provenance.dsse.json")
    payload = base64.b64decode(facts["payload"]).replace(b'"seed": 1', b'"seed": 2')
    facts["payload"] = base64.b64encode(payload).decode()
    (submission / "provenance.dsse.json").write_text(json.dumps(facts), encoding="utf-8")


def edit_type(submission: Path) -> None:
    path = submission / "provenance.dsse.json"
    path.write_text(path.read_text().replace("vnd.in-toto+json", "vnd.in-toto2+json"))


def drop_signatures(submission: Path) -> None:
    facts = opened(submission / "provenance.dsse.json") | {"signatures": []}
    (submission / "provenance.dsse.json").write_text(json.dumps(facts), encoding="utf-8")


FIX = "use the signer's public key; to sign again: `weighin sign`"
NOBODY = (
    "submission/provenance.dsse.json was signed by nobody, not by public.pem (a1e9156054e0)\n"
    f"  to fix: {FIX}"
)
UNSIGNED = (
    "submission/provenance.dsse.json was changed since public.pem signed it\n"
    "  to fix: use the signer's public key; to sign again: `weighin sign`"
)
NO_ENVELOPE = (
    "submission/provenance.dsse.json is no DSSE envelope of a statement\n"
    "  to fix: sign the provenance first: `weighin sign`"
)


def changed(name: str, what: str = "is not the one that was stated") -> str:
    fix = "rebuild it with `dvc repro`, or sign again"
    return f"submission/{name} {what}\n  to fix: {fix}"


def append(name: str) -> Callable[[Path], None]:
    def spoil(submission: Path) -> None:
        with (submission / name).open("ab") as file:
            file.write(b"\n")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (edit_payload, MismatchError, UNSIGNED),
        (drop_signatures, MismatchError, NOBODY),
        (edit_type, DataError, NO_ENVELOPE),
        (lambda s: (s / "provenance.dsse.json").write_text("{"), DataError, NO_ENVELOPE),
        (append("submission.csv"), MismatchError, changed("submission.csv")),
        (append("model.onnx"), MismatchError, changed("model.onnx")),
        (append("provenance.json"), MismatchError, changed("provenance.json")),
        (append("report.html"), MismatchError, changed("report.html")),
        (append("plots/search.csv"), MismatchError, changed("plots/search.csv")),
        (
            lambda s: (s / "metrics.json").unlink(),
            MismatchError,
            changed("metrics.json", "is missing"),
        ),
        (
            lambda s: (s / "provenance.dsse.json").unlink(),
            DataError,
            "cannot read submission/provenance.dsse.json: No such file or directory\n"
            "  to fix: sign the provenance first: `weighin sign`",
        ),
    ],
)
def test_what_was_changed_is_named(
    submission: Path, spoil: Callable[[Path], None], kind: type[Exception], said: str
) -> None:
    envelope = signed(submission)
    verify(envelope)
    spoil(submission)
    with pytest.raises(kind) as caught:
        verify(envelope)
    assert str(caught.value) == said


MAKE_KEY = "\n  to fix: make one: openssl genpkey -algorithm ed25519 -out key.pem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f"key.pem is no private key{MAKE_KEY}"),
        (PUBLIC, f"key.pem is no private key{MAKE_KEY}"),
        (KEY.replace("MC4CAQ", "MC4CAx"), f"key.pem is no private key{MAKE_KEY}"),
    ],
)
def test_a_key_that_is_none(submission: Path, text: str, said: str) -> None:
    Path("key.pem").write_text(text, encoding="ascii")
    with pytest.raises(DataError) as caught:
        signed(submission)
    assert str(caught.value) == said
    assert not (submission / "provenance.dsse.json").exists()


def openssl(*arguments: str) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_a_key_of_another_kind(submission: Path) -> None:
    openssl("genpkey", "-algorithm", "x25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    with pytest.raises(DataError) as caught:
        signed(submission)
    assert str(caught.value) == f"key.pem is no ed25519 key{MAKE_KEY}"


def test_an_encrypted_key(submission: Path) -> None:
    openssl("pkey", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "key.pem.new")
    Path("key.pem.new").replace("key.pem")
    with pytest.raises(DataError) as caught:
        signed(submission)
    assert str(caught.value) == (
        "key.pem is encrypted\n"
        "  to fix: give a key without a passphrase: openssl pkey -in key.pem -out plain.pem"
    )


def test_a_missing_key(submission: Path) -> None:
    Path("key.pem").unlink()
    with pytest.raises(DataError) as caught:
        signed(submission)
    assert str(caught.value) == f"cannot read key.pem: No such file or directory{MAKE_KEY}"


def test_a_public_key_that_is_none(submission: Path) -> None:
    envelope = signed(submission)
    with pytest.raises(DataError) as caught:
        verify(envelope, "key.pem")
    assert str(caught.value) == (
        "key.pem is no public key\n  to fix: make it from the key: "
        "openssl pkey -in key.pem -pubout -out public.pem"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda facts: facts.update(predicateType="x"),
        lambda facts: facts.pop("predicate"),
        lambda facts: facts["predicate"]["runDetails"].update(byproducts=[1]),
        lambda facts: facts["subject"][0].pop("digest"),
    ],
)
def test_only_a_provenance_is_signed(submission: Path, spoil: Callable[[Any], Any]) -> None:
    path = submission / "provenance.json"
    facts = opened(path)
    spoil(facts)
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        signed(submission)
    assert str(caught.value) == (
        "submission/provenance.json holds no provenance\n"
        "  to fix: run `dvc repro report`, then sign"
    )
    assert not (submission / "provenance.dsse.json").exists()


def test_a_witness_says_hashes_only() -> None:
    with pytest.raises(ParamsError) as caught:
        BuildMetadata(commit="main")
    assert str(caught.value) == (
        '"main" is no commit\n  to fix: give the output of git rev-parse HEAD'
    )
    with pytest.raises(ParamsError) as caught:
        BuildMetadata(image="weighin:latest")
    assert str(caught.value) == (
        '"weighin:latest" is no image ID\n  to fix: give sha256: and 64 hexadecimal digits'
    )


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_the_commit_is_known_while_nothing_differs_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("WEIGHIN_IMAGE", raising=False)
    assert observe_build(Path()) == BuildMetadata()
    git("init", "--quiet")
    assert observe_build(Path()) == BuildMetadata()
    Path("a").write_text("1\n", encoding="utf-8")
    git("add", "a")
    git("commit", "--quiet", "-m", "one")
    monkeypatch.setenv("WEIGHIN_IMAGE", IMAGE)
    assert observe_build(Path()) == BuildMetadata(git("rev-parse", "HEAD"), IMAGE)
    Path("untracked").write_text("1\n", encoding="utf-8")
    assert observe_build(Path()).commit
    Path("a").write_text("2\n", encoding="utf-8")
    assert observe_build(Path()) == BuildMetadata(None, IMAGE)
