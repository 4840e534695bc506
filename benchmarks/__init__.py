"""Measurements for the documents, each with its command."""
