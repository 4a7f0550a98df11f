"""The figures of the README: one file a room, `python -m bench` for all of them."""
