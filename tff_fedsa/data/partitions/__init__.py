"""Ways of dealing examples out to clients, one a file.

Each is a function of labels and a random stream that returns one index array
per client; `tff_fedsa.data.partition.draw` calls them by name.
"""
