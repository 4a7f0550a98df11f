"""A signed copy of provenance.json: whoever signs says so, and from which commit and image.

provenance.dsse.json is a DSSE envelope (github.com/secure-systems-lab/dsse, v1.0) around the
statement, to which the signer's commit and image are added. It belongs to whoever signs and is
no output of a stage. Ed25519 signatures are deterministic (RFC 8032): the same statement, commit,
image and key give the same bytes.

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
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from weighin.errors import DataError, MismatchError, ParamsError
from weighin.files import canonical_json, sha256_file, write_json
from weighin.report.provenance import PREDICATE, STATEMENT, SUBMISSION, Json, described

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
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    commit = _git(project, "rev-parse", "--verify", "HEAD") if changed == "" else None
    return BuildMetadata(commit, os.environ.get(VARIABLE) or None)


def with_metadata(statement: Json, metadata: BuildMetadata) -> Json:
    """Return a statement with the commit and the image among what it was made from."""
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    if metadata.commit:
        dependencies.append(described("source", gitCommit=metadata.commit))
    if metadata.image:
        dependencies.append(described("image", sha256=metadata.image.removeprefix(SHA256)))
    return statement


def metadata_of(statement: Json) -> BuildMetadata:
    """Return the commit and the image that a signed statement names."""
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = {row["name"]: row["digest"] for row in dependencies}
    image = digests.get("image", {}).get("sha256")
    return BuildMetadata(digests.get("source", {}).get("gitCommit"), image and SHA256 + image)


def sign(statement: Path, key: Path, metadata: BuildMetadata = UNKNOWN) -> Path:
    """Write and return the signed copy of a provenance.json, beside it.

    Raises:
        DataError: the statement or the key is missing or is none.
        OutputError: the copy cannot be written; the last one stays as it was.
    """
    private = _private(key)
    facts = with_metadata(
        _statement(_text(statement, "run `dvc repro report`"), statement), metadata
    )
    facts["subject"].append(described(statement.name, sha256=sha256_file(statement)))
    payload = canonical_json(facts).encode()
    signature = private.sign(_signed_text(payload))
    envelope = statement.with_suffix(".dsse.json")
    write_json(
        envelope,
        {
            "payloadType": PAYLOAD,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [
                {
                    "keyid": key_id(private.public_key()),
                    "sig": base64.b64encode(signature).decode(),
                }
            ],
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
    if not any(_signed_by(public, signature, payload) for signature in signatures):
        raise MismatchError(
            f"{envelope} was not signed by the key {public_key}, or was changed since",
            "use the signer's public key; to sign again: `weighin sign`",
        )
    statement = _statement(payload, envelope)
    _check_files(statement, envelope.parent)
    return statement


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key's DER form, which names it in an envelope."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _signed_text(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: lengths and contents, nothing to parse twice."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _statement(text: bytes, source: Path) -> Json:
    """Return a statement of provenance.py's form."""
    try:
        facts: Json = dict(json.loads(text))
        predicate = facts["predicate"]
        rows = [*facts["subject"], *predicate["runDetails"]["byproducts"]]
        rows += predicate["buildDefinition"]["resolvedDependencies"]
        whole = all({"name", "digest"} <= row.keys() for row in rows)
        if whole and (facts["_type"], facts["predicateType"]) == (STATEMENT, PREDICATE):
            return facts
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DataError(f"{source} holds no provenance", "run `dvc repro report`, then sign")


def _opened(envelope: Path) -> tuple[bytes, list[bytes]]:
    fix = "sign the provenance first: `weighin sign`"
    text = _text(envelope, fix)
    try:
        facts = json.loads(text)
        if facts["payloadType"] != PAYLOAD:
            raise ValueError
        signatures = [base64.b64decode(row["sig"], validate=True) for row in facts["signatures"]]
        return base64.b64decode(facts["payload"], validate=True), signatures
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise DataError(f"{envelope} is no DSSE envelope of a statement", fix) from None


def _signed_by(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _signed_text(payload))
    except InvalidSignature:
        return False
    return True


def _check_files(statement: Json, folder: Path) -> None:
    prefix = f"{SUBMISSION}/"
    made = statement["predicate"]["runDetails"]["byproducts"]
    named = [(row["name"], row["digest"]["sha256"]) for row in statement["subject"]]
    named += [
        (row["name"].removeprefix(prefix), row["digest"]["sha256"])
        for row in made
        if row["name"].startswith(prefix)
    ]
    for name, digest in named:
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            what = "has changed since it was signed" if path.exists() else "is missing"
            raise MismatchError(f"{path} {what}", "rebuild it with `dvc repro`, or sign again")


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
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
