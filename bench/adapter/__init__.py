"""What the adapter costs: `python -m bench.adapter` prints every goal and what was measured.

Correctness comes first: nothing is timed where a check against float64 fails. Ratios are of one
run. `report` turns the JSON files of runs into tables and a plot, `tune` measures tiles.
"""
