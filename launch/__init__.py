"""Launchers: `python -m launch.train --help`."""
