"""Programs that run in the environments of the teachers, and import nothing of this package."""
