"""Prints what identifies an image, whatever engine built or stored it: `fingerprint.py SAVED.tar`.

    id    SHA-256 of its configuration: `docker images` shows this in the classic image store
    tree  SHA-256 of its flattened files (path, kind, mode, owner, time, link, content) and of how
          it runs; independent of layers, compression and the builder's version
    size  bytes of its files, unpacked

SAVED.tar comes from `docker save`. Standard library only.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import IO, Any, cast

Tree = dict[str, dict[str, Any]]
RUN = ("Cmd", "Entrypoint", "Env", "User", "Volumes", "WorkingDir")


def identity(saved: Path) -> dict[str, Any]:
    """Return the three facts above of the one image in an archive."""
    with tarfile.open(saved) as archive:
        (manifest,) = json.load(opened(archive, "manifest.json"))
        config = opened(archive, manifest["Config"]).read()
        tree: Tree = {}
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=opened(archive, name)) as layer:
                lay(layer, tree)
    how = json.loads(config).get("config") or {}
    facts = {"run": {key: how[key] for key in RUN if how.get(key)}, "tree": tree}
    return {
        "id": "sha256:" + hashlib.sha256(config).hexdigest(),
        "tree": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        "size": sum(entry["size"] for entry in tree.values()),
    }


def opened(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a file of an archive."""
    file = archive.extractfile(name)
    if file is None:
        sys.exit(f"{name} is not a file in the archive")
    return file


def lay(layer: tarfile.TarFile, tree: Tree) -> None:
    """Lay one layer over `tree`, its whiteouts removing what lies below."""
    for member in layer:
        path = member.name.removeprefix("./").strip("/")
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            remove(tree, folder + "/", exact="")
        elif name.startswith(".wh."):
            gone = f"{folder}/{name[4:]}".lstrip("/")
            remove(tree, gone + "/", exact=gone)
        elif path:
            tree[path] = entry(layer, member)


def remove(tree: Tree, below: str, exact: str) -> None:
    """Remove one path, and those that start with `below`, from `tree`."""
    for path in [path for path in tree if path == exact or path.startswith(below)]:
        del tree[path]


def entry(layer: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    """Return what one file is."""
    file = layer.extractfile(member) if member.isreg() else None
    return {
        "kind": "0" if member.isreg() else member.type.decode(),
        "mode": member.mode & 0o7777,  # old engines write type bits into this field
        "owner": [member.uid, member.gid],
        "time": int(member.mtime),
        "link": member.linkname.removeprefix("./"),
        "size": member.size if member.isreg() else 0,
        "content": hashlib.file_digest(cast(Any, file), "sha256").hexdigest() if file else "",
        "attributes": {k: v for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr")},
    }


if __name__ == "__main__":
    print(json.dumps(identity(Path(sys.argv[1]))))
