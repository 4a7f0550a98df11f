"""The page's sections on what the submission was made from and how to rebuild and grade it."""

from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, folded, paragraph, section, table
from weighin.report.provenance import Json, versions

REBUILD = "dvc repro"
GRADE = "python -m weighin.grading submission/model.onnx data/test graded --contest params.yaml"
SCORED = f"{GRADE} --truth data/test_truth.csv"


def origin(definition: Json) -> Markup:
    """Return the hashes of what the submission was made from, and the environment."""
    rows = [
        [row["name"], method, digest]
        for row in definition["resolvedDependencies"]
        for method, digest in row["digest"].items()
    ]
    pins = definition["internalParameters"]["environment"]
    return section(
        "origin",
        "Made from",
        table("Inputs by their hashes", ["input", "hash", "value"], rows),
        folded(
            "Environment",
            table("Packages that compute", ["package", "version"], _rows(versions())),
            table("Variables that pin the instruction set", ["variable", "value"], _rows(pins)),
        ),
    )


def rebuild(facts: Facts) -> Markup:
    """Return the commands that rebuild the submission and that grade it."""
    return section(
        "rebuild",
        "Rebuild and grade",
        paragraph(
            "The same data, parameters and code give every file of this submission again, "
            "byte for byte; provenance.json holds the hashes to compare with."
        ),
        _commands(REBUILD),
        paragraph(
            "The grader trusts nothing that is said here: it counts the MACs from the graph of "
            "model.onnx, labels the folder and, given the truth, scores it."
        ),
        _commands(GRADE, SCORED),
        paragraph(
            f"submission.csv labels {facts.labelled:,} files. SHA-256 of model.onnx: ",
            element("code", facts.model.sha256),
        ),
    )


def _rows(values: dict[str, str]) -> list[list[str]]:
    return [[name, values[name]] for name in sorted(values)]


def _commands(*lines: str) -> Markup:
    return element("pre", element("code", "\n".join(lines)), tabindex="0")
