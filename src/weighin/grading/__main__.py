"""`python -m weighin.grading MODEL FOLDER OUT`: what the grader image runs."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from weighin.determinism import pin
from weighin.errors import DataError
from weighin.file_names import walk
from weighin.grading.limits import Limits, limited, seconds_for

EXIT_CODES = (
    "exit codes: 0 graded; 2 wrong usage; 4 contest file; 5 images or truth; 7 work that the rule "
    "does not see; 8 model; 9 output; 12 takes too long; 13 takes too much memory; 130 "
    "interrupted; 143 terminated. Only 0 has written anything."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    signal.signal(signal.SIGTERM, _terminated)  # the first process of a container ignores it else
    options = _parser().parse_args(arguments)
    seconds = options.seconds or seconds_for(_files(options.folder))
    limits = Limits(seconds, int(options.memory * 2**20))
    try:
        return limited(lambda: _grade(options, limits), limits)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


def _files(folder: Path) -> int:
    try:
        return sum(1 for _ in walk(folder))
    except DataError:
        return 0  # what is wrong with the folder is said where it is read


def summary(facts: dict[str, Any]) -> list[str]:
    """Return the lines that say how it went."""
    model, margin = facts["model"], facts["margin"]
    lines = [
        f"{facts['images']:,} images labelled, {len(facts['unreadable']):,} of them unreadable",
        f"{model['macs']:,} MACs and {model['parameters']:,} parameters, counted from the graph",
        f"{model['bytes']:,} bytes, {model['memory']:,} bytes of activations at their peak",
    ]
    lines += [f"out of the contest: {fault}" for fault in facts["over_limits"]]
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


def _grade(options: argparse.Namespace, limits: Limits) -> int:
    from weighin.grading.contract import from_file
    from weighin.grading.grade import grade, read_contest
    from weighin.grading.score import WASTE

    contest = read_contest(options.contest, options.own_score) if options.contest else WASTE
    result = grade(
        options.model,
        options.folder,
        options.out,
        truth=options.truth,
        contest=contest,
        strict=options.strict,
        limits=limits,
        contract=from_file(options.contract) if options.contract else None,
    )
    print("\n".join(summary(result.facts)))
    return 0


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
    parser.add_argument(
        "--contract", type=Path, help="a JSON file in place of the contract in the model's metadata"
    )
    parser.add_argument(
        "--own-score",
        action="store_true",
        help="run the Python file that the contest's `score` names, if it names one",
    )
    parser.add_argument(
        "--seconds", type=_positive, help="time that it may take (default: 30, and 0.5 an image)"
    )
    parser.add_argument("--memory", type=_positive, default=4096, help="MB that it may take (4096)")
    parser.add_argument("--strict", action="store_true", help="fail on an unreadable image")
    return parser


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number above 0")


def _terminated(number: int, frame: object) -> None:
    # at once: an exception would be lost, or end in a traceback, in the middle of an import
    os._exit(128 + number)


if __name__ == "__main__":
    pin()
    sys.exit(main())
