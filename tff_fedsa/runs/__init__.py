"""Files of a run: checkpoints, metrics, exported models."""
