"""Architectures and recipes, searched in generations."""
