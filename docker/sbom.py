"""Prints what an image holds as CycloneDX 1.5: `sbom.py PACKAGES SYSTEM`.

Python packages by their metadata in PACKAGES, Debian packages by their copyright files under
SYSTEM, and the interpreter where it is no Debian package. Standard library only, for it runs inside
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


def python_packages(folder: Path) -> Iterator[Component]:
    """Yield the distributions installed in `folder`."""
    for metadata in folder.glob("*.dist-info/METADATA"):
        facts = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = facts["Name"], facts["Version"]
        licence = facts["License-Expression"] or "see its own metadata"
        yield component("pypi", name.lower().replace("_", "-"), version, licence)


def debian_packages(system: Path) -> Iterator[Component]:
    """Yield the packages whose copyright file is under `system`."""
    kept = {path.parent.name for path in (system / "usr/share/doc").glob("*/copyright")}
    if not STATUS.is_file():
        return
    for block in STATUS.read_text(encoding="utf-8").split("\n\n"):
        facts = HeaderParser().parsestr(block)
        if facts["Package"] in kept:
            yield component("deb/debian", facts["Package"], facts["Version"], "see its copyright")


def interpreter(system: Path) -> Iterator[Component]:
    """Yield Python itself, where it was built from source."""
    if (system / "usr/local/bin/python3").exists():
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


def main(packages: Path, system: Path) -> None:
    """Print the bill of an image."""
    found = [*python_packages(packages), *debian_packages(system), *interpreter(system)]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": sorted(found, key=lambda item: str(item["purl"])),
    }
    print(json.dumps(bill, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
