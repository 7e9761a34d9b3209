"""`python -m bench.adapter`."""

import sys

from bench.adapter.cli import main

sys.exit(main())
