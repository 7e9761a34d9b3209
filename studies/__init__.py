"""Ablation studies: YAML questions, real backbones and tasks, and the engine that runs them."""
