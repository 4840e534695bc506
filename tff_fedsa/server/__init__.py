"""What the server knows, sends and trains."""
