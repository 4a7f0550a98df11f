"""Compression of a trained network: pruning, factorized layers and their ranks, finetuning."""
