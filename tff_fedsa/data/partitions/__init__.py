"""Partitions of examples among clients, one per file.

Each is a function of labels and a random stream. It returns one index array per
client. `tff_fedsa.data.partition.draw` calls them by name.
"""
