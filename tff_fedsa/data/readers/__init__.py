"""Readers: one module per layout on disk. Each returns a `sources.Source`."""
