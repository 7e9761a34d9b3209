"""Putting adapters into the weights of base layers, and taking them out bit for bit."""
