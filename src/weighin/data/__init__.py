"""Images in: import, faults, splits, packing, and the rendered default set."""
