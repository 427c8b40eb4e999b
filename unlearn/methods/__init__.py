"""Unlearning methods, one a file. None of them reads a real image."""
