"""Every fault that the fuzzer looks for, once: run this file to see what it sees."""

from __future__ import annotations

import os
import signal
import time
import warnings
from typing import Any

import torch
from case import Case, CaseId, close
from runner import Runner

_VALUES = torch.ones(3)


def _foreign() -> None:
    raise IndexError("list index out of range")


def _unnamed() -> None:
    raise ValueError("must be finite")


def _named() -> None:
    raise ValueError("f: x must be finite, got nan")


def _switch() -> None:
    torch.set_default_dtype(torch.float64)


def _case(call: Any, **more: Any) -> Case:
    return Case(call, "x=1", ("f",), **more)


CASES = {
    "good": _case(lambda: 1.0, check=lambda x: close("x", x, 1.0)),
    "refused": _case(_named, expect="refusal"),
    "crash": _case(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    "after the crash": _case(lambda: 1.0),
    "exit": _case(lambda: os._exit(3)),
    "hang": _case(lambda: time.sleep(60), seconds=0.5),
    "foreign": _case(_foreign),
    "unnamed": _case(_unnamed),
    "refused good": _case(_named),
    "took bad": _case(lambda: 1.0, expect="refusal"),
    "wrong": _case(lambda: 2.0, check=lambda x: close("x", x, 1.0)),
    "nan": _case(lambda: torch.tensor(torch.nan), check=lambda x: close("x", x, 1.0)),
    "input": _case(lambda: _VALUES.add_(1), inputs={"x": _VALUES}),
    "memory": _case(lambda: bytearray(3 * 2**30)),
    "warning": _case(lambda: warnings.warn("not ours", stacklevel=1)),
    "state": _case(_switch),
}


def main() -> None:
    """Run them in two children; a line for each."""
    torch.set_num_threads(1)
    runner = Runner(lambda case_id: CASES[case_id.entrance], workers=2, batch=20)
    ids = [CaseId(name, 0, 0) for name in CASES]
    for outcome in runner.run(ids):
        print(f"{outcome.case.entrance}: {outcome.complaint}")


if __name__ == "__main__":
    main()
