"""Checkpoints: what is saved, how it is found, read and verified."""
