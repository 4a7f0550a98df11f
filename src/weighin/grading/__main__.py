"""`python -m weighin.grading MODEL FOLDER OUT`: what the grader image runs."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from weighin.determinism import pin
from weighin.errors import WeighinError

EXIT_CODES = (
    "exit codes: 0 graded; 2 wrong usage; 4 contest file; 5 images or truth; 7 work that the rule "
    "does not see; 8 model; 9 output; 130 interrupted; 143 terminated. Only 0 has written anything."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    signal.signal(signal.SIGTERM, _terminated)  # the first process of a container ignores it else
    options = _parser().parse_args(arguments)
    try:
        facts = _grade(options)
    except WeighinError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print("\n".join(summary(facts)))
    return 0


def summary(facts: dict[str, Any]) -> list[str]:
    """Return the lines that say how it went."""
    model, margin = facts["model"], facts["margin"]
    lines = [
        f"{facts['images']:,} images labelled, {len(facts['unreadable']):,} of them unreadable",
        f"{model['macs']:,} MACs and {model['parameters']:,} parameters, counted from the graph",
    ]
    if margin["smallest"] is not None:
        lines.append(
            f"closest call {margin['smallest']:.2g} ({margin['file']}); "
            f"{margin['close']:,} images under {margin['close_means_under']:g}"
        )
    if "quality" in facts:
        found = facts["quality"]
        lines += found["notes"]
        lines.append(f"macro F1 {found['f1']:.4f}, score {found['score']['value']:.4f}")
    return lines


def _grade(options: argparse.Namespace) -> dict[str, Any]:
    from weighin.grading.grade import grade, read_contest
    from weighin.grading.score import WASTE

    contest = read_contest(options.contest) if options.contest else WASTE
    result = grade(
        options.model,
        options.folder,
        options.out,
        truth=options.truth,
        contest=contest,
        strict=options.strict,
    )
    return result.facts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weighin-grader",
        description="Label a folder of images with an ONNX model, recount its MACs, score it.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("folder", type=Path, help="the images, at any depth")
    parser.add_argument("out", type=Path, help="where submission.csv and grade.json go")
    parser.add_argument("--truth", type=Path, help="CSV of filename,class to score against")
    parser.add_argument(
        "--contest",
        type=Path,
        help="a params.yaml whose `contest` section holds the rules (default: the waste contest)",
    )
    parser.add_argument("--strict", action="store_true", help="fail on an unreadable image")
    return parser


def _terminated(number: int, frame: object) -> None:
    # at once: an exception would be lost, or end in a traceback, in the middle of an import
    os._exit(128 + number)


if __name__ == "__main__":
    pin()
    sys.exit(main())
