"""The sections of benchmarks.gpu, each in a separate process."""
