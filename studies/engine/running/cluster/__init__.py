"""Trials on a Ray cluster: a slot is a worker on some node, whose files come home."""
