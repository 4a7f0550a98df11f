"""Trains the small job in a process of its own, for tests that kill, starve or multiply it.

run_small_job.py PACK SCRATCH OUT [workers=N] [epochs=N] [seed=N] [device=NAME]
writes OUT and prints its SHA-256.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    from weighin.determinism import pin

    pin()

    from dataclasses import replace

    from small_job import RECIPE, make_job

    from weighin.errors import WeighinError
    from weighin.files import sha256_file
    from weighin.training.process_group import is_first
    from weighin.training.train import train_job
    from weighin.training.weights import write_weights

    pack, scratch, out = map(Path, sys.argv[1:4])
    given = dict(pair.split("=") for pair in sys.argv[4:])
    recipe = replace(RECIPE, device=given.get("device", "cpu"))
    address = (int(given.get("seed", 1)), "t")
    job = make_job(pack, recipe=recipe, epochs=int(given.get("epochs", 4)), address=address)
    try:
        result = train_job(given.get("what", "train"), job, int(given.get("workers", 1)), scratch)
        if is_first():
            write_weights(out, result.weights)
            print(sha256_file(out), flush=True)
    except WeighinError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
