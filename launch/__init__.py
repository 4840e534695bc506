"""The programs behind `tff-fedsa`."""
