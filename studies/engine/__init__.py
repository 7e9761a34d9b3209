"""The engine: schema, plan, dispatch, trial, track, report."""
