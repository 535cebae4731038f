"""The drawn sample set `emoset_sketch`: small scenes with an emotion each; see `docs/sample_set.md`."""
