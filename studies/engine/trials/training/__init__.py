"""The training of a trial: batches, steps, what is written down of them, and checkpoints."""
