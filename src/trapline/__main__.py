"""`python -m trapline`."""

import sys

from trapline.cli.main import main

sys.exit(main())
