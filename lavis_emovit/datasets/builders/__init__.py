"""Builders of the registered datasets."""
