"""One trial, from backbone to result: training, checkpoints, seeds, failures, what comes after."""
