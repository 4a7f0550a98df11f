"""work/decompose, work/train -> work/finetune, submission/model.onnx: recovered and exported."""

from pathlib import Path

from weighin.stage import Stage, main


def finetune(stage: Stage) -> None:
    """Train the factorized network on, with the one as it was trained for a teacher."""
    from weighin.compress.finetune import finetune
    from weighin.compress.store import Trained, read_network
    from weighin.network.spec import read_spec
    from weighin.params import load_recipe
    from weighin.training.weights import read_weights

    given = read_network(Path("work/decompose"))
    trained = Trained(
        read_spec(Path("work/search/network.yaml")),
        read_weights(Path("work/train/weights.safetensors")),
    )
    finetune(
        Path("work/prepare"),
        given.spec,
        given.ranks,
        given.weights,
        trained,
        load_recipe(Path("work/tune/recipe.json")),
        stage.params,
        Path("work/finetune"),
        Path("submission/model.onnx"),
        stage.scratch,
    )


if __name__ == "__main__":
    main(finetune)
