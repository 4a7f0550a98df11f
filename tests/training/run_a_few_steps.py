"""Trains the small job for a few steps and prints a hash: run_a_few_steps.py PACK.

It does not pin: the test that emulates other processors gives the pins, or leaves them out.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import safetensors.numpy
from small_job import AUGMENT, LOSS, RECIPE, make_job

from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import fit

EVERY = replace(
    AUGMENT, crop=0.5, rotate=10.0, shear=3.0, cutout=0.3, mixup=0.3, cutmix=0.5, randaugment=2,
    magnitude=9,
)  # fmt: skip

if __name__ == "__main__":
    loss = replace(LOSS, focal=0.5, logit_adjustment=0.5)
    digest = hashlib.sha256()
    for optimizer in ("sgd", "adamw"):
        recipe = replace(RECIPE, optimizer=optimizer, augment=EVERY, loss=loss)
        result = fit(ProcessGroup(), make_job(Path(sys.argv[1]), recipe=recipe, epochs=2))
        digest.update(safetensors.numpy.save(result.weights) + result.logits.tobytes())
    print(digest.hexdigest())
