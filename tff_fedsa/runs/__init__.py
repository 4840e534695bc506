"""Everything that a run reads and writes."""
