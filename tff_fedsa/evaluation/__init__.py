"""Federated evaluation of clients' models and of an averaged one."""
