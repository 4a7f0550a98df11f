"""work/train -> work/decompose: the trained network cut and factorized, never with more MACs."""

from pathlib import Path

from weighin.stage import Stage, main


def decompose(stage: Stage) -> None:
    """Factorize the trained network's convolutions."""
    from weighin.compress.decompose import decompose
    from weighin.network.spec import read_spec
    from weighin.params import load_recipe
    from weighin.training.weights import read_weights

    decompose(
        Path("work/prepare"),
        read_spec(Path("work/search/network.yaml")),
        read_weights(Path("work/train/weights.safetensors")),
        load_recipe(Path("work/tune/recipe.json")),
        stage.params,
        Path("work/decompose"),
        stage.scratch,
    )


if __name__ == "__main__":
    main(decompose)
