"""Methods: each is one file with one public `build_*` function."""
