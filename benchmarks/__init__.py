"""Measurements whose numbers the documents quote, each with its command."""
