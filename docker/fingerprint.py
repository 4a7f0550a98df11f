"""Prints what identifies an image, whatever engine built or stored it.

    id    SHA-256 of its configuration: `docker images` shows this in the classic image store
    tree  SHA-256 of its flattened files (path, kind, mode, owner, time, link, content) and of how
          it runs; independent of layers, compression and the builder's version
    size  bytes of its files, unpacked

It reads `docker save IMAGE` as it comes (an image is gigabytes). Standard library only.
"""

import hashlib
import io
import json
import posixpath
import sys
import tarfile
from typing import IO, Any, cast

Tree = dict[str, dict[str, Any]]
Layer = list[tuple[str, dict[str, Any]]]  # the paths of a layer in their order
JSON = (b"{", b"[")
RUN = ("Cmd", "Entrypoint", "Env", "User", "Volumes", "WorkingDir")


def identity(saved: IO[bytes]) -> dict[str, Any]:
    """Return the three facts above of the one image in an archive."""
    facts: dict[str, bytes] = {}
    layers: dict[str, Layer] = {}
    links: dict[str, str] = {}  # old engines write a layer that they have written as a link to it
    with tarfile.open(fileobj=saved, mode="r|") as archive:
        for member in archive:
            if member.issym():
                links[member.name] = posixpath.normpath(f"{member.name}/../{member.linkname}")
            elif file := cast(io.BufferedReader, archive.extractfile(member)):
                if file.peek(1)[:1] in JSON or posixpath.basename(member.name) == "VERSION":
                    facts[member.name] = file.read()
                else:
                    layers[member.name] = entries(file)
    (manifest,) = json.loads(facts["manifest.json"])
    config = facts[manifest["Config"]]
    tree: Tree = {}
    for name in manifest["Layers"]:
        lay(layers[links.get(name, name)], tree)
    how = json.loads(config).get("config") or {}
    seen = {"run": {key: how[key] for key in RUN if how.get(key)}, "tree": tree}
    return {
        "id": "sha256:" + hashlib.sha256(config).hexdigest(),
        "tree": hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest(),
        "size": sum(entry["size"] for entry in tree.values()),
    }


def entries(layer: IO[bytes]) -> Layer:
    """Return what is in a layer."""
    with tarfile.open(fileobj=layer, mode="r|*") as files:
        return [(file.name.removeprefix("./").strip("/"), entry(files, file)) for file in files]


def lay(layer: Layer, tree: Tree) -> None:
    """Lay one layer over `tree`, its whiteouts removing what lies below."""
    for path, what in layer:
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            remove(tree, folder + "/", exact="")
        elif name.startswith(".wh."):
            gone = f"{folder}/{name[4:]}".lstrip("/")
            remove(tree, gone + "/", exact=gone)
        elif path:
            tree[path] = what


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
    print(json.dumps(identity(sys.stdin.buffer)))
