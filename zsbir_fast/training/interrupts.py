"""Ctrl-C and SIGTERM while Lightning trains: taken between steps, and passed on unchanged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that was asked to end, as shells give it."""


class InterruptBetweenSteps(Callback):
    """Ends training after the step under way at the first Ctrl-C, and at once at the second.

    In the middle of a step the exception would hit any line of any library: TensorBoard's writer,
    for one, then waits for ever when it is closed.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End here if that was asked for; Lightning calls this."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take Ctrl-C here, unless another handler has it; afterwards all is as before.

        Lightning turns both signals into an exit with code 1 and ignores Ctrl-C for good.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: SIGTERM; the code is ``TERMINATED``.
        """
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)
        if main and before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
        try:
            yield
        except SIGTERMException:
            raise SystemExit(TERMINATED) from None
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            if main:
                signal.signal(signal.SIGINT, before)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
