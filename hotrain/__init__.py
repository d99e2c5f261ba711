"""Training of hand and object segmentation on hodata shards."""
