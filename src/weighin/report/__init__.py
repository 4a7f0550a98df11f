"""Plots, page, model card, provenance."""
