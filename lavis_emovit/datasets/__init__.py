"""LAVIS datasets and builders over shards, and how their items become batches."""
