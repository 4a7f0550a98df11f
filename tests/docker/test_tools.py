"""What the builds are made with, tried without an engine: identities, bills of materials, locks."""

import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from .conftest import ROOT

DOCKER = ROOT / "docker"


def layer(files: dict[str, bytes | None], time: int = 5) -> bytes:
    """Return a tar of files, and of folders where there is no content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = time
            if content is None:
                member.type = tarfile.DIRTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


def saved(*layers: bytes, user: str = "1:1") -> dict[str, Any]:
    """Say what `docker save` would, and return what fingerprint.py says of it."""
    names = [f"layer{i}" for i in range(len(layers))]
    manifest = [{"Config": "config", "Layers": names}]
    config = {"config": {"User": user}, "history": names}
    contents = [json.dumps(manifest).encode(), json.dumps(config).encode(), *layers]
    files = dict(zip(["manifest.json", "config", *names], contents, strict=True))
    return identified(layer(dict(files)))


def identified(archive: bytes) -> dict[str, Any]:
    """Return what fingerprint.py says of what `docker save` wrote."""
    command = [sys.executable, DOCKER / "fingerprint.py"]
    done = subprocess.run(command, input=archive, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_tree_is_what_is_seen_not_how_it_is_layered() -> None:
    whole = layer({"a": None, "a/x": b"123", "b": None, "b/y": b"45"})
    below = layer({"a": None, "a/x": b"123", "a/old": b"-", "b": None, "b/gone": b"-", "c": b"-"})
    above = layer({"a/.wh.old": b"", "b/.wh..wh..opq": b"", "b/y": b"45", ".wh.c": b""})
    one = saved(whole)
    assert saved(gzip.compress(whole))["tree"] == one["tree"]
    two = saved(below, above)
    assert (one["tree"], one["size"]) == (two["tree"], 5)
    assert one["id"] != two["id"]
    others = [
        saved(layer({"a": None, "a/x": b"124", "b": None, "b/y": b"45"})),
        saved(layer({"a": None, "a/x": b"123", "b": None, "b/z": b"45"})),
        saved(layer({"a": None, "a/x": b"123", "b": None, "b/y": b"45"}, 6)),
        saved(whole, user="2:2"),
    ]
    assert len({one["tree"], *(other["tree"] for other in others)}) == 5


def test_a_layer_that_is_saved_twice_may_be_a_link() -> None:
    below, above = layer({"x": b"1"}), layer({".wh.x": b"", "y": b"2"})
    config = json.dumps({"config": {}}).encode()
    names = [f"{name}/layer.tar" for name in "abc"]
    manifest = json.dumps([{"Config": "c.json", "Layers": names}]).encode()
    files = {names[0]: below, names[1]: above, "c.json": config, "manifest.json": manifest}
    out = io.BytesIO(layer(dict(files)))
    with tarfile.open(fileobj=out, mode="a") as tar:
        link = tarfile.TarInfo(names[2])
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    whole = saved(layer({"x": b"1", "y": b"2"}), user="")
    assert identified(out.getvalue())["tree"] == whole["tree"]


def test_a_bill_names_both_kinds_of_packages(tmp_path: Path) -> None:
    (tmp_path / "packages/Some_Thing-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "packages/Some_Thing-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.0\nLicense-Expression: MIT\n\nName: no"
    )
    for name in ("libz", "python"):
        (tmp_path / "system/usr/share/doc" / name).mkdir(parents=True)
        (tmp_path / "system/usr/share/doc" / name / "copyright").touch()
    status = tmp_path / "status"
    status.write_text("Package: libz\nVersion: 1.2-3\n\nPackage: absent\nVersion: 9\n\n")
    code = (
        f"import sys; sys.path.insert(0, {str(DOCKER)!r}); import sbom; from pathlib import Path\n"
        f"sbom.STATUS = Path({str(status)!r})\n"
        f"sbom.main(Path({str(tmp_path / 'packages')!r}), Path({str(tmp_path / 'system')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    bill = json.loads(done.stdout)
    assert [
        (part["purl"], part["licenses"][0]["license"]["name"]) for part in bill["components"]
    ] == [
        ("pkg:deb/debian/libz@1.2-3", "see its copyright"),
        ("pkg:pypi/some-thing@1.0", "MIT"),
    ]


def locked(text: str) -> dict[str, list[str]]:
    """Return {name==version: hashes} of a lock."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {b.split()[0]: re.findall(r"sha256:\w+", b) for b in blocks if "==" in b}


def test_the_pipelines_packages_are_the_locks_less_the_graphics(tmp_path: Path) -> None:
    command = ["sh", DOCKER / "locked.sh", "rebuild"]
    found = locked(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    whole = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    without = (DOCKER / "rebuild.without").read_text(encoding="utf-8").split()
    absent = {name for name in whole if name.partition("==")[0] in without}
    assert len(absent) == len(without)
    assert found == {name: hashes for name, hashes in whole.items() if name not in absent}
    assert all(found.values())
