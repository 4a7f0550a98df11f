"""A short training: fewer shards a batch, and a rate to match."""

from dataclasses import replace

from weighin.params import Params
from weighin.search.trainer import shortened


def test_a_quarter_of_the_batch_halves_the_rate(params: Params) -> None:
    recipe = replace(params.recipe, shards=4, lr=0.1)
    assert shortened(recipe, 1) == replace(recipe, shards=1, lr=0.05)


def test_more_shards_than_there_are_change_nothing(params: Params) -> None:
    assert shortened(params.recipe, 256) == params.recipe
