"""Measurements beside the peers. Not installed; run from the root of the repository: `python -m benchmarks`."""
