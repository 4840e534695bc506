"""Computations of a client, and its state between rounds."""
