"""Types of arguments that several layers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

# One integer for each row: labels, of any integer type.
Integers = Tensor | Sequence[int] | NDArray[Any]
