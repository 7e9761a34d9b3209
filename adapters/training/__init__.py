"""What a training loop needs: hooks of methods, groups and counts of parameters, CUDA graphs."""
