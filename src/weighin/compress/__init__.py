"""Factorised convolutions, their ranks, and cutting."""
