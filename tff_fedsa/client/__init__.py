"""What runs at a client, and what it keeps between rounds."""
