"""How templates become pages: every text is escaped, and a name that is not given is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "page.css"


def environment(folder: Path) -> Environment:
    """Return what renders the templates of a folder."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
