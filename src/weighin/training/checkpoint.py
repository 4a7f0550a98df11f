"""The state of a training run as bytes, and as a file that is either whole or not there.

Layout: 32 bytes of SHA-256, then safetensors; the history travels inside as JSON bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from weighin.files import sweep
from weighin.progress import say


@dataclass(frozen=True)
class State:
    """What a run needs to go on: arrays by name, finished epochs, history."""

    arrays: Mapping[str, npt.NDArray[Any]]
    epoch: int
    history: list[dict[str, float]]


def pack(state: State) -> bytes:
    """Return a state as bytes."""
    facts = json.dumps({"epoch": state.epoch, "history": state.history}).encode()
    body = safetensors.numpy.save({**state.arrays, "facts": np.frombuffer(facts, np.uint8)})
    return hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> State | None:
    """Return the state in `data`, or None where the bytes are not whole."""
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    arrays = safetensors.numpy.load(body)
    facts = json.loads(arrays.pop("facts").tobytes())
    return State(arrays, facts["epoch"], facts["history"])


def load(path: Path) -> bytes:
    """Return the packed state at `path`; empty where there is none or it is not whole."""
    sweep(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return b""
    if unpack(data) is None:
        say(f"{path.name} is damaged: beginning again")
        return b""
    return data
