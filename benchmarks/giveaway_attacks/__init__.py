"""The attacks of benchmarks.giveaway, and what they share."""
