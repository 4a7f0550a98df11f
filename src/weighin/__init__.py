"""From a folder of labelled images and a contest's rules to a lightweight model anyone rebuilds.

    weighin.count(network)                    MACs and parameters: rows file, ONNX file, nn.Module
    weighin.score(submission, truth, model)   F1, MACs and the contest's score of a submission.csv
    weighin.grade(model, folder, out)         labels a folder and counts, as the grader does
    weighin.metrics()                         submission/metrics.json
    weighin.verify()                          rebuilds the last commit and compares every output
    weighin.WeighinError                      what they raise: .problem, and .fix for it

These names are loaded when they are first used; everything else is private.
"""

import importlib
from typing import Any

__all__ = ["WeighinError", "count", "grade", "metrics", "score", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'weighin' has no attribute '{name}'")
    return getattr(importlib.import_module("weighin.api"), name)


def __dir__() -> list[str]:
    return __all__
