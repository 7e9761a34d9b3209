"""How the commands end."""

DONE, INCOMPLETE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: everything done; a trial failed or is missing; something to correct; Ctrl-C."""
STOPPED = "Stopped. Finished trials are kept: run the same command again to continue"
