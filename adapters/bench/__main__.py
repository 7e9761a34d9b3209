"""`python -m adapters.bench`."""

import sys

from adapters.bench.cli import main

sys.exit(main())
