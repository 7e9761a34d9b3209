"""Trials to processes, each exactly once: slots, databases, hosts, job queues."""
