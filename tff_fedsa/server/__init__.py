"""State, messages and training of the server."""
