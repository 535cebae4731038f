"""Suites: requests to models about benchmarks, rows on disk, tables and report."""
