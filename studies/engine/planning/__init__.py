"""From a study to its trials: arms, seeds, tuning, plans on file, and what an edit changed."""
