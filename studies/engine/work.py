"""`python -m studies.engine.work plan.json`: work off plans on a bare machine."""

import sys

from studies.engine.command.work import main

if __name__ == "__main__":
    sys.exit(main())
