"""The figures of the README: one file a part, `python -m bench` for all of them."""
