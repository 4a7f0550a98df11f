"""Cuts a trained network down, block by block and channel by channel, while its score falls.

After each cut the smaller network is trained for `decompose.cut_epochs`, with the uncut one for a
teacher; the cut stays if the contest's score on the validation split has fallen, and the first one
that does not pay is the last. So the best documented team of the contest went from 4-8-4 blocks to
2-5-2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from weighin.compress.blocks import BlockCut, block_cuts
from weighin.compress.channels import narrower
from weighin.compress.probe import Probe
from weighin.compress.store import Trained
from weighin.compress.worth import worth
from weighin.data.pack import read_packed
from weighin.grading.f1 import agreement
from weighin.network.cost import folded_macs
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.training.train import train_job
from weighin.training.trainer import Job

RATE = 0.2  # of the recipe's peak: a network that is nearly right needs no more
LESSON = 1.0  # weight of the teacher's labels, where the recipe has none
STEPS = 4  # in which the channels go


@dataclass(frozen=True)
class Shears:
    """What cutting needs to know: the data, the uncut network, and how to train after a cut."""

    packed: Path
    uncut: Trained
    classes: int
    recipe: Recipe
    params: Params
    scratch: Path

    def quality(self, network: Trained) -> tuple[float, float]:
        """Return F1 and accuracy of a network as it is."""
        return Probe(self.packed, network.spec, network.weights, self.params.seed).agreement({})

    def score(self, network: Trained, quality: tuple[float, float]) -> float:
        """Return the contest's score of a network of this quality."""
        return worth(self.params.contest, network.spec, self.classes, quality)

    def recovered(self, network: Trained, what: str) -> tuple[Trained, float]:
        """Return a network trained on after a cut, and its score."""
        knobs = self.params.decompose
        if not knobs.cut_epochs:
            return network, self.score(network, self.quality(network))
        loss = replace(self.recipe.loss, distillation=self.recipe.loss.distillation or LESSON)
        job = Job(
            spec=network.spec,
            recipe=replace(self.recipe, lr=RATE * self.recipe.lr, low_resolution=0.0, loss=loss),
            epochs=knobs.cut_epochs,
            packed=self.packed,
            address=(self.params.seed, what),
            start=network.weights,
            teacher=self.uncut,
        )
        result = train_job(what, job, "auto", self.scratch)
        held = read_packed(self.packed, "validation", network.spec.input)
        found = agreement(held.labels, result.logits.argmax(1), held.classes)
        trained = Trained(network.spec, result.weights)
        return trained, self.score(trained, (found.f1, found.accuracy))


def cut(shears: Shears) -> Trained:
    """Return the uncut network with the blocks and channels gone that `decompose` says.

    Raises:
        WorkerError, OutputError: run again, it goes on from the last finished epoch.
    """
    knobs, network = shears.params.decompose, shears.uncut
    if not knobs.cut_blocks and not knobs.cut_channels:
        return network
    score = shears.score(network, shears.quality(network))
    blocks = min(knobs.cut_blocks, sum(row.repeats for row in network.spec.rows))
    network, score = _while_it_pays(shears, network, score, blocks, "block", _block)
    steps, whole = STEPS if knobs.cut_channels else 0, network.spec
    return _while_it_pays(shears, network, score, steps, "channels", partial(_channels, whole))[0]


Next = Callable[[Shears, Trained, int], tuple[Trained, str] | None]


def _while_it_pays(
    shears: Shears, network: Trained, score: float, most: int, kind: str, following: Next
) -> tuple[Trained, float]:
    for number in range(1, most + 1):
        proposed = following(shears, network, number)
        if proposed is None:
            continue
        smaller, name = proposed
        tried, tried_score = shears.recovered(smaller, f"cut-{kind}-{number}")
        macs = folded_macs(smaller.spec, shears.classes)
        pays = tried_score < score
        verdict = "stays cut" if pays else "is put back"
        say(f"cut  {name} {verdict}: score {score:.4f} -> {tried_score:.4f} at {macs:,} MACs")
        if not pays:
            break
        network, score = tried, tried_score
    return network, score


def _block(shears: Shears, network: Trained, number: int) -> tuple[Trained, str] | None:
    """Return the network without the block whose loss costs least before any training."""
    cuts = block_cuts(network.spec, shears.classes)
    if not cuts:
        return None

    def after(cut: BlockCut) -> float:
        smaller = cut.apply(network)
        return shears.score(smaller, shears.quality(smaller))

    best = min(cuts, key=after)
    return best.apply(network), best.name


def _channels(
    whole: NetworkSpec, shears: Shears, network: Trained, number: int
) -> tuple[Trained, str] | None:
    """Return the network with so many steps of `whole`'s hidden channels gone, if any go."""
    share = shears.params.decompose.cut_channels * number / STEPS
    smaller = narrower(network, share, shears.classes, whole)
    if folded_macs(smaller.spec, shears.classes) >= folded_macs(network.spec, shears.classes):
        return None  # all widths round to what they are
    return smaller, f"{share:.0%} of the hidden channels"
