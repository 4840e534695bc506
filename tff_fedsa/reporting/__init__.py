"""Summaries and figures of a run."""
