"""Aggregation of class prototypes: factories of `AggregationProcess`es."""
