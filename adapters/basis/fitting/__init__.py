"""Fits all phis of an adapter together once per optimizer step, and keeps the fits while valid."""
