"""`python -m genbench`."""

import sys

from genbench.cli.main import main

sys.exit(main())
