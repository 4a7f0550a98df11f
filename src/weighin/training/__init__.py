"""The one training loop: shards, recipe, checkpoints."""
