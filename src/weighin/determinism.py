"""What makes the same bytes everywhere: one instruction set, and randomness with an address.

The pins make NumPy, OpenBLAS, MKL, oneDNN and ATen use AVX2 code on one thread, whatever the
processor offers. Libraries read them while they load, so `pin` restarts the interpreter when they
are not yet set; call it before NumPy or torch is imported.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator

PINS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # MKL's AVX2 code differs between AMD and Intel; this one does not
    "OPENBLAS_CORETYPE": "Haswell",
    # NumPy's exp, log, pow change with AVX-512, and its argsort orders ties otherwise with AVX2
    "NPY_DISABLE_CPU_FEATURES": "X86_V3,X86_V4,AVX512_ICL,AVX512_SPR",
}


def pinned() -> bool:
    """Whether this process was started with every pin."""
    return all(os.environ.get(name) == value for name, value in PINS.items())


def pin() -> None:
    """Make this process a pinned one, restarting its interpreter once if need be."""
    restart_with(PINS)


def restart_with(variables: Mapping[str, str]) -> None:
    """Restart the interpreter with these environment variables, unless it has them already."""
    if variables.items() <= os.environ.items():
        return
    loaded = sorted({"numpy", "torch"} & sys.modules.keys())
    if loaded:
        raise RuntimeError(f"pin() must run before {' and '.join(loaded)} is imported")
    os.environ.update(variables)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def generator(*address: int | str) -> "Generator":
    """Return the random stream at an address such as ``(seed, "augment", epoch, shard)``.

    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by a hash
    of the address: no stream depends on what was drawn from another.
    """
    import numpy as np

    text = "\n".join(map(_spelt, address))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def _spelt(part: int | str) -> str:
    """Return a part so that addresses differ in spelling too, and NumPy's integers are plain."""
    if isinstance(part, str):
        return "str:" + part.replace("\\", "\\\\").replace("\n", "\\n")
    return f"int:{int(part)}"
