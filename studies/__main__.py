"""`python -m studies STUDY.yaml` runs a study, as `python run_study.py STUDY.yaml` does."""

import sys

from studies.engine.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
