"""Processes that work together: joining, watching, signals, seeds and devices."""
