"""FedSA, federated learning through semantic anchors, in TensorFlow Federated.

Nothing is imported here: take what you need, e.g.
`from tff_fedsa.algorithms import fedsa`. One round, from top to bottom, is
drawn in `tff_fedsa.composer`; `tff_fedsa.simulation` runs many.
"""
