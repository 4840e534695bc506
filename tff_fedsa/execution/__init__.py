"""Execution of TFF computations; knows nothing of FedSA."""
