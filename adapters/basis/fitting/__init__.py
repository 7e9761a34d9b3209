"""All phis of an adapter, fitted together once an optimizer step and kept while they hold."""
