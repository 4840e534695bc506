"""Data: sources -> partition -> per-client arrays -> federated task."""
