"""The field: who is there, drops out or is late, and how long it all takes."""
