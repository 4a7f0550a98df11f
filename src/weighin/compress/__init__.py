"""Factorized convolutions, their ranks, and cutting."""
