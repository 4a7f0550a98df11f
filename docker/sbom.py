"""Prints what an image holds as CycloneDX 1.5: `sbom.py ROOT`.

Python packages by their metadata under ROOT/opt, Debian packages by their copyright files under
ROOT, and the interpreter where it is no Debian package. Standard library only, for it runs inside
the build; no serial number and no time, so that the same packages give the same bytes.
"""

import json
import platform
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

Component = dict[str, object]
STATUS = Path("/var/lib/dpkg/status")


def python_packages(root: Path) -> Iterator[Component]:
    """Yield the installed distributions under `root`."""
    for metadata in (root / "opt").rglob("*.dist-info/METADATA"):
        facts = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = facts["Name"], facts["Version"]
        licence = facts["License-Expression"] or "see its own metadata"
        yield component("pypi", name.lower().replace("_", "-"), version, licence)


def debian_packages(root: Path) -> Iterator[Component]:
    """Yield the packages whose copyright file is under `root`."""
    kept = {path.parent.name for path in (root / "usr/share/doc").glob("*/copyright")}
    for block in STATUS.read_text(encoding="utf-8").split("\n\n"):
        facts = HeaderParser().parsestr(block)
        if facts["Package"] in kept:
            yield component("deb/debian", facts["Package"], facts["Version"], "see its copyright")


def interpreter(root: Path) -> Iterator[Component]:
    """Yield Python itself, where it was built from source."""
    if (root / "usr/local/bin/python3").exists():
        yield component("generic", "python", platform.python_version(), "PSF-2.0")


def component(kind: str, name: str, version: str, licence: str) -> Component:
    """Return one CycloneDX component."""
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{name}@{version}",
        "licenses": [{"license": {"name": licence}}],
    }


def main(root: Path) -> None:
    """Print the bill of the packages under `root`."""
    found = [*python_packages(root), *debian_packages(root), *interpreter(root)]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": sorted(found, key=lambda item: str(item["purl"])),
    }
    print(json.dumps(bill, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
