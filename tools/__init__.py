"""Programs that keep the repository in order; not installed."""
