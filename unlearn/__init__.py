"""Unlearning without the training data: shards in, a student and a report out. Never needs Ray."""
