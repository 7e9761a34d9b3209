"""Run an ablation study: `python run_study.py studies/grid_size.yaml`."""

import sys

from studies.engine.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
