"""``python -m zsbir_fast.cli`` is ``zsbir``: for torchrun, and where the script is not on the path."""

from __future__ import annotations

import sys

from zsbir_fast.cli.app import main

sys.exit(main())
