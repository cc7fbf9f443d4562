"""The product's figures, measured with real parts in one run, each beside the floor that the same machine sets."""
