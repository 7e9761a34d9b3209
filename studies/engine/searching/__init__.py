"""The points of an adaptive search, one after the other."""
