"""Algorithms: one file and one public `build_*` each."""
