"""Sweeps: what their files say, their record, what their runs share."""
