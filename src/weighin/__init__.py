"""From a folder of labelled images and a contest's rules to a lightweight model anyone rebuilds."""

__version__ = "0.1.0"
