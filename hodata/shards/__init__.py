"""Shard format v1: plain WebDataset tars with a Parquet index. `shards/README.md` at the top is the specification."""

FORMAT_VERSION = 1
