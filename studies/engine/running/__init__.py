"""Trials on machines: one loop, its runners and slots."""
