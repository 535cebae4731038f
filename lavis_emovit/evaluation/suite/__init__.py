"""Suites: models asked about benchmarks, rows on disk, tables and report."""
