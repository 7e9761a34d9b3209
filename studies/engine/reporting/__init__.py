"""From results to tables, verdicts and figures."""
