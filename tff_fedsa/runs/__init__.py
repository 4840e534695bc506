"""What a run writes and reads: checkpoints, metrics, exported models."""
