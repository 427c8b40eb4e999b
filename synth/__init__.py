"""Data synthesis: a checkpoint in, WebDataset shards out. Imports nothing, so that `unlearn` can use its parts without Ray."""
