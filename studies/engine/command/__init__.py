"""The command line: a study file in, trials, report and MLflow page out."""
