"""Is the other model still as good? Many prompts, each drawn by both from the same seed, and statistics on a score."""
