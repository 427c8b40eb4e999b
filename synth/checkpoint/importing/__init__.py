"""Checkpoints out of files that other code wrote: reading, finding the weights in them, and checking what they mean."""
