"""work/search, work/tune -> work/train: the chosen network, trained with the tuned recipe."""

from pathlib import Path

from weighin.stage import Stage, main


def train(stage: Stage) -> None:
    """Train the chosen network."""
    from weighin.network.spec import read_spec
    from weighin.params import load_recipe
    from weighin.training.train import train

    spec = read_spec(Path("work/search/network.yaml"))
    recipe = load_recipe(Path("work/tune/recipe.json"))
    train(Path("work/prepare"), spec, recipe, stage.params, Path("work/train"), stage.scratch)


if __name__ == "__main__":
    main(train)
