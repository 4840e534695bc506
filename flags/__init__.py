"""Groups of absl flags: objects that define flags and build settings.

A group's constructor defines its flags for the launcher that makes it; its
`build()`, called in `main`, returns what they describe. Importing this package
or asking a launcher for `--help` imports neither TensorFlow nor TFF.
"""
