"""Models that can be evaluated: one small adapter for each family."""
