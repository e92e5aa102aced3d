"""`python -m agentrft.runtime.serving`."""

from __future__ import annotations

import os
import sys

from agentrft.runtime.serving.process import main

if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A model that is being loaded, or a pass under way, would keep an ordinary exit waiting for its thread.
    os._exit(code)
