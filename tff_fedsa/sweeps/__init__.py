"""Sweeps: their files, their record, and the shares of their runs."""
