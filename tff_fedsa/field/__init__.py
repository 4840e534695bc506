"""The field: availability, dropout and speed of clients."""
