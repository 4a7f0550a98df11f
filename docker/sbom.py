"""Prints what an image holds as CycloneDX 1.5: Python packages by hash-locked wheel, Debian's too.

Standard library only, for it runs inside the build; no serial number and no time, so that the
same packages give the same bytes.
"""

import json
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

Component = dict[str, object]


def python_packages(folder: Path) -> Iterator[Component]:
    """Yield the installed distributions under `folder`."""
    for metadata in folder.glob("*.dist-info/METADATA"):
        facts = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = facts["Name"], facts["Version"]
        licence = facts["License-Expression"] or "see its own metadata"
        yield component("pypi", name.lower().replace("_", "-"), version, licence)


def debian_packages(status: Path) -> Iterator[Component]:
    """Yield the packages that dpkg knows of."""
    if not status.is_file():
        return
    for block in status.read_text(encoding="utf-8").split("\n\n"):
        facts = HeaderParser().parsestr(block)
        if facts["Package"]:
            yield component("deb/debian", facts["Package"], facts["Version"], "see its copyright")


def component(kind: str, name: str, version: str, licence: str) -> Component:
    """Return one CycloneDX component."""
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{name}@{version}",
        "licenses": [{"license": {"name": licence}}],
    }


def main() -> None:
    """Print the bill of the packages under the folder that is named and of Debian's."""
    found = [*python_packages(Path(sys.argv[1])), *debian_packages(Path("/var/lib/dpkg/status"))]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": sorted(found, key=lambda item: str(item["purl"])),
    }
    print(json.dumps(bill, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
