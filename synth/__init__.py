"""Data synthesis: from a checkpoint to WebDataset shards.

Imports nothing, so that `unlearn` can use parts of the package without Ray.
"""
