"""The runner, its settings and its engines, registered in LAVIS."""
