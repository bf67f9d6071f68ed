"""`python -m oasis_core` is the `oasis` command."""

import sys

from .cli import main

sys.exit(main())
