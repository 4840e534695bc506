"""Readers: one module per layout on disk, each returns a `sources.Source`."""
