"""``python -m zsbir_fast.cli`` is ``zsbir``, as torchrun needs it."""

from __future__ import annotations

import sys

from zsbir_fast.cli.app import main

sys.exit(main())
