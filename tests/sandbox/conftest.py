"""Probes, their judge and the modes are modules beside the tests; the driver of the modes imports them too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
