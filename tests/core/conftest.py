"""Lets tests of this folder import the plain modules that lie in it, such as `infvsr_files`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
