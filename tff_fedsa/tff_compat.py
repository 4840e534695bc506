"""Names that are private in TFF 0.87 and public in later releases.

Public names that upstream moved (`tff.federated_computation`, types,
placements, most of `tff.program`) are used under their names of 0.87
everywhere; `tools.port_tff` holds their table and renames them in one go. What
a rename cannot do is here, or within `execution`, which is close to TFF's own
executors.
"""

from tensorflow_federated.python.common_libs import serializable

# `tff.program.FileProgramStateManager` saves its subclasses as bytes;
# `federated_language.Serializable` in later releases.
Serializable = serializable.Serializable
