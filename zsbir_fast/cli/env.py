"""``zsbir env``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from zsbir_fast import env_report

_USAGE = """\
usage: zsbir env [-h] [--json]

Print versions, what was built, and why something is not.

options:
  -h, --help  show this help
  --json      print JSON, for programs

examples:
  zsbir env
  zsbir env --json > env.json
"""


def main(argv: Sequence[str]) -> None:
    """Run the command. It uses no parser library, so that it works where one is missing.

    Args:
        argv: arguments after ``env``.
    """
    unknown = [argument for argument in argv if argument not in ("-h", "--help", "--json")]
    if unknown:
        sys.stderr.write(f"zsbir env: error: unrecognized arguments: {' '.join(unknown)}\n")
        raise SystemExit(2)
    if "-h" in argv or "--help" in argv:
        sys.stdout.write(_USAGE)
        return
    facts = env_report.collect()
    text = json.dumps(facts, indent=2) if "--json" in argv else env_report.as_text(facts)
    sys.stdout.write(f"{text}\n")
