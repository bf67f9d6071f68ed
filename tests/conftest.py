"""Put the repository root last on the path: `nodes/` must never shadow ComfyUI's `nodes.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
