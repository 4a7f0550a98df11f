"""A signed copy of provenance.json: whoever signs says so, and from which commit and image.

provenance.dsse.json is a DSSE envelope (github.com/secure-systems-lab/dsse, v1.0) around the
statement, to which the signer's commit and image and the machine that built are added. It belongs
to whoever signs and is no output of a stage. What is signed is checked first: the files and the
commit must be those that the statement names. Ed25519 signatures are deterministic (RFC 8032): the
same statement, commit, image, machine and key give the same bytes.

A key pair:  openssl genpkey -algorithm ed25519 -out key.pem
             openssl pkey -in key.pem -pubout -out public.pem
OpenSSH's ed25519 keys are read too.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from weighin.data.versioning import recorded
from weighin.errors import DataError, MismatchError, ParamsError
from weighin.files import canonical_json, read_yaml, sha256, sha256_file, write_json
from weighin.machine import output
from weighin.params import load
from weighin.report.provenance import (
    PREDICATE,
    STATEMENT,
    SUBMISSION,
    Json,
    described,
    parameter_values,
    recorded_machine,
    tree,
)

SUBJECTS = frozenset({"submission.csv", "model.onnx"})
SIGNED = ".dsse.json"
PAYLOAD = "application/vnd.in-toto+json"
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
SHA256 = "sha256:"
IMAGE = re.compile(SHA256 + "[0-9a-f]{64}")
VARIABLE = "WEIGHIN_IMAGE"  # a container does not know its own image: `docker run -e` tells it
MAKE_KEY = "make one: openssl genpkey -algorithm ed25519 -out key.pem"
MAKE_PUBLIC = "make it from the key: openssl pkey -in key.pem -pubout -out public.pem"


@dataclass(frozen=True)
class BuildMetadata:
    """A commit in hexadecimal and an image's ID, sha256:<hexadecimal>; None where unknown."""

    commit: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        if self.commit is not None and not COMMIT.fullmatch(self.commit):
            raise ParamsError(
                f'"{self.commit}" is no commit', "give the output of git rev-parse HEAD"
            )
        if self.image is not None and not IMAGE.fullmatch(self.image):
            raise ParamsError(
                f'"{self.image}" is no image ID', "give sha256: and 64 hexadecimal digits"
            )


UNKNOWN = BuildMetadata()


def observe_build(project: Path) -> BuildMetadata:
    """Return the commit that a project's folder is at, and the image that WEIGHIN_IMAGE names.

    There is no commit where a tracked file differs from it: nobody could check it out again.
    """
    commit = _git(project, "rev-parse", "--verify", "HEAD") if uncommitted(project) == [] else None
    return BuildMetadata(commit, os.environ.get(VARIABLE) or None)


def uncommitted(project: Path) -> list[str] | None:
    """Return the tracked files that differ from the last commit; None where Git reads none."""
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    return None if changed is None else [line.split(maxsplit=1)[1] for line in changed.splitlines()]


def metadata_of(statement: Json) -> BuildMetadata:
    """Return the commit and the image that a signed statement names."""
    digests = {row["name"]: row["digest"] for row in _dependencies(statement)}
    image = digests.get("image", {}).get("sha256")
    return BuildMetadata(digests.get("source", {}).get("gitCommit"), image and SHA256 + image)


def build_machine(statement: Path) -> Json | None:
    """Return the machine that made a provenance.json, by its own record or the signed copy's.

    Nothing vouches for it but whoever wrote it; a record of another provenance.json is None.
    """
    found = recorded_machine(statement)
    envelope = statement.with_suffix(SIGNED)
    if found is None and envelope.exists() and statement.exists():
        facts = _statement(_opened(envelope)[0], envelope)
        named = {row["name"]: row["digest"].get("sha256") for row in facts["subject"]}
        if named.get(statement.name) == sha256_file(statement):
            found = facts["predicate"]["buildDefinition"]["internalParameters"].get("machine")
    return found


def sign(
    statement: Path, key: Path, metadata: BuildMetadata = UNKNOWN, project: Path = Path()
) -> Path:
    """Write and return the signed copy of a provenance.json, beside it.

    The files beside it must be those that it names, and the commit must hold what they were made
    from: data.dvc, requirements.lock, the parameters, the code, and a dvc.lock of these files.

    Raises:
        DataError: the statement or the key is missing or is none.
        MismatchError: a file or the commit is not what the statement names.
        OutputError: the copy cannot be written; the last one stays as it was.
    """
    private = _private(key)
    text = _text(statement, "run `dvc repro report`")
    facts = _statement(text, statement)
    _check_files(facts, statement.parent)
    if metadata.commit:
        _check_commit(facts, statement, project, metadata.commit)
        _dependencies(facts).append(described("source", gitCommit=metadata.commit))
    if metadata.image:
        image = metadata.image.removeprefix(SHA256)
        _dependencies(facts).append(described("image", sha256=image))
    machine = recorded_machine(statement)
    if machine:
        facts["predicate"]["buildDefinition"]["internalParameters"]["machine"] = machine
    facts["subject"].append(described(statement.name, sha256=sha256(text)))
    payload = canonical_json(facts).encode()
    signature = base64.b64encode(private.sign(_signed_text(payload))).decode()
    envelope = statement.with_suffix(SIGNED)
    write_json(
        envelope,
        {
            "payloadType": PAYLOAD,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": key_id(private.public_key()), "sig": signature}],
        },
    )
    return envelope


def verify_signature(envelope: Path, public_key: Path) -> Json:
    """Return the statement of an envelope that the key signed, its files beside it unchanged.

    Every subject, and every file of the submission that the statement names, is hashed again.

    Raises:
        DataError: the envelope or the key is missing or is none.
        MismatchError: another key signed, or something changed since.
    """
    public = _public(public_key)
    payload, signatures = _opened(envelope)
    if not any(_signed_by(public, signature, payload) for signature in signatures.values()):
        fix = "use the signer's public key; to sign again: `weighin sign`"
        if key_id(public) in signatures:
            raise MismatchError(f"{envelope} was changed since {public_key} signed it", fix)
        signers = ", ".join(signer[:12] for signer in signatures) or "nobody"
        raise MismatchError(
            f"{envelope} was signed by {signers}, not by {public_key} ({key_id(public)[:12]})", fix
        )
    statement = _statement(payload, envelope)
    _check_files(statement, envelope.parent)
    return statement


def _check_commit(facts: Json, statement: Path, project: Path, commit: str) -> None:
    """Pass if a commit holds what a statement names, and a dvc.lock of the statement itself."""
    fix = "commit what the submission was built from, `dvc repro`, commit dvc.lock, then sign"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "commit"
        archive = _git(project, "archive", "--format=tar", f"--output={folder}/tar", commit)
        if archive is None:
            raise MismatchError(f"{project.absolute()} has no commit {commit[:12]}", fix)
        shutil.unpack_archive(f"{folder}/tar", root, "tar")  # filters came with Python 3.11.4
        for row in _dependencies(facts):
            # a file below data/ is held by the hash of data/
            if not row["name"].startswith("data/") and row["digest"] != _digest(root, row["name"]):
                lacking = f"commit {commit[:12]} does not hold the {row['name']}"
                raise MismatchError(f"{lacking} that {statement} names", fix)
        lock = root / "dvc.lock"
        stages = read_yaml(lock)["stages"].values() if lock.exists() else ()
    outs = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", ())}
    digest = hashlib.md5(statement.read_bytes(), usedforsecurity=False).hexdigest()
    if outs.get(f"{SUBMISSION}/{statement.name}") != digest:
        raise MismatchError(f"commit {commit[:12]} holds a dvc.lock of another {statement}", fix)


def _digest(root: Path, name: str) -> dict[str, str] | None:
    """Return the digest of what a project in `root` holds under a dependency's name."""
    path = root / ("params.yaml" if name == "params" else name)
    if name == "data":
        md5 = recorded(root)
        return None if md5 is None else {"dvcMd5": md5}
    if name == "params" and path.exists():
        return {"sha256": sha256(canonical_json(parameter_values(load(path))).encode())}
    if path.is_dir():
        return dict(tree(path, name)["digest"])
    return {"sha256": sha256_file(path)} if path.is_file() else None


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key's DER form, which names it in an envelope."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _signed_text(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: lengths and contents, nothing to parse twice."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _statement(text: bytes, source: Path) -> Json:
    """Return a statement of provenance.py's form, which names nothing twice."""
    try:
        facts: Json = _parsed(text, source)
        made = facts["predicate"]["runDetails"]["byproducts"]
        parts = (facts["subject"], made, _dependencies(facts))
        names = [[row["name"] for row in rows if row["digest"].items()] for rows in parts]
        whole = {*names[0]} >= SUBJECTS and [*map(len, names)] == [*map(len, parts)]
        if whole and (facts["_type"], facts["predicateType"]) == (STATEMENT, PREDICATE):
            _check_once(names[0] + names[1], source)
            _check_once(names[2], source)
            return facts
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DataError(f"{source} holds no provenance", "run `dvc repro report`, then sign")


def _dependencies(facts: Json) -> list[Json]:
    found: list[Json] = facts["predicate"]["buildDefinition"]["resolvedDependencies"]
    return found


def _parsed(text: bytes, source: Path) -> Any:
    """Return parsed JSON; a key given twice is refused: which of them counts is anybody's guess."""

    def checked(pairs: list[tuple[str, Any]]) -> Json:
        _check_once([key for key, _ in pairs], source)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=checked)


def _check_once(names: list[str], source: Path) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(f'{source} names "{name}" twice', "run `dvc repro report`, then sign")


def _opened(envelope: Path) -> tuple[bytes, dict[str, bytes]]:
    """Return the payload, and the signatures by the ids of their keys."""
    fix = "sign the provenance first: `weighin sign`"
    text = _text(envelope, fix)
    try:
        facts = _parsed(text, envelope)
        if facts["payloadType"] != PAYLOAD:
            raise ValueError
        rows = facts["signatures"]
        ids = [str(row.get("keyid", place)) for place, row in enumerate(rows)]
        _check_once(ids, envelope)
        signatures = [base64.b64decode(row["sig"], validate=True) for row in rows]
        payload = base64.b64decode(facts["payload"], validate=True)
        return payload, dict(zip(ids, signatures, strict=True))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        raise DataError(f"{envelope} is no DSSE envelope of a statement", fix) from None


def _signed_by(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _signed_text(payload))
    except InvalidSignature:
        return False
    return True


def _check_files(statement: Json, folder: Path) -> None:
    """Pass if the files of a submission are those that its statement names."""
    prefix = f"{SUBMISSION}/"
    made = statement["predicate"]["runDetails"]["byproducts"]
    named = {row["name"]: row["digest"].get("sha256") for row in statement["subject"]}
    named |= {
        row["name"].removeprefix(prefix): row["digest"].get("sha256")
        for row in made
        if row["name"].startswith(prefix)
    }
    fix = "rebuild it with `dvc repro`, or sign again"
    files = {name: folder / name for name in named}
    found = {name: sha256_file(path) if path.is_file() else None for name, path in files.items()}
    if all(found[name] not in (None, named[name]) for name in SUBJECTS):
        names = " and ".join(sorted(SUBJECTS))
        raise MismatchError(f"the statement is of another submission: {names} are others", fix)
    for name, digest in named.items():
        if found[name] != digest:
            what = "is missing" if found[name] is None else "is not the one that was stated"
            raise MismatchError(f"{folder / name} {what}", fix)


def _private(path: Path) -> Ed25519PrivateKey:
    text = _text(path, MAKE_KEY)
    try:
        ssh = text.startswith(b"-----BEGIN OPENSSH")
        load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
        key = load(text, password=None)
    except TypeError:
        raise DataError(
            f"{path} is encrypted",
            f"give a key without a passphrase: openssl pkey -in {path} -out plain.pem",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise DataError(f"{path} is no private key", MAKE_KEY) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(f"{path} is no ed25519 key", MAKE_KEY)
    return key


def _public(path: Path) -> Ed25519PublicKey:
    text = _text(path, MAKE_PUBLIC)
    try:
        ssh = text.startswith(b"ssh-")
        load = serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key
        key = load(text)
    except (ValueError, UnsupportedAlgorithm):
        raise DataError(f"{path} is no public key", MAKE_PUBLIC) from None
    if not isinstance(key, Ed25519PublicKey):
        raise DataError(f"{path} is no ed25519 key", MAKE_PUBLIC)
    return key


def _text(path: Path, fix: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix) from None


def _git(project: Path, *arguments: str) -> str | None:
    return output("git", "-C", str(project), *arguments)
