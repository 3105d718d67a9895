"""Checkpoints: one opener for paths, hub ids and shipped names; their parts, tensors and digests."""
