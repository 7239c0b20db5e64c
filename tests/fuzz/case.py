"""A fuzz case: one call of a public entrance, and what may come of it."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

OURS = (ValueError, TypeError, RuntimeError, OSError)
LONGEST_MESSAGE = 3000  # characters
Expect = Literal["value", "refusal", "either"]


@dataclass(frozen=True)
class CaseId:
    """Names a case: the same entrance, seed and number make the same case, whatever else exists."""

    entrance: str
    seed: int
    number: int

    def rng(self) -> np.random.Generator:
        """The case's own source of random numbers."""
        return np.random.default_rng([self.seed, zlib.crc32(self.entrance.encode()), self.number])

    def __str__(self) -> str:
        return f"{self.entrance}:{self.number}"


@dataclass
class Case:
    """One call.

    Attributes:
        call: runs the public entrance.
        says: the call in words, for the report.
        names: an error must begin with one of these, followed by a colon.
        expect: ``"value"``: arguments are good and must not be refused. ``"refusal"``: they are
            bad. ``"either"``: the documentation leaves it open.
        check: compares the result with the oracle; returns the complaint, or None.
        inputs: arguments that the call must leave as they were.
        message: what the text of an error must contain.
        seconds: limit of the call.
    """

    call: Callable[[], Any]
    says: str
    names: Sequence[str]
    expect: Expect = "value"
    check: Callable[[Any], str | None] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 20.0


def judge(case: Case) -> str | None:
    """Run a case in this process.

    Returns:
        The complaint, ``"kind: detail"``, or None where all is well.
    """
    inputs, state = _fingerprints(case.inputs), global_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        complaint = _outcome(case)
    if complaint is None and _fingerprints(case.inputs) != inputs:
        complaint = "changed its input"
    if complaint is None and global_state() != state:
        complaint = f"changed the process: {_difference(state, global_state())}"
    for warning in caught:
        text = " ".join(str(warning.message).split())
        if complaint is None and not _is_ours(text, case.names):
            complaint = f"warning of others: {warning.category.__name__}: {text[:200]}"
    return complaint


def _outcome(case: Case) -> str | None:
    try:
        result = case.call()
    except OURS as error:
        text = str(error)
        kind = type(error).__name__
        if not _is_ours(text, case.names):
            return f"error that is not ours: {kind}: {text[:300]!r}"
        if len(text) > LONGEST_MESSAGE:
            return f"message without end: {len(text)} characters: {text[:200]!r}"
        if case.message not in text:
            return f"message does not name {case.message!r}: {text[:300]!r}"
        return f"refused good arguments: {kind}: {text[:300]}" if case.expect == "value" else None
    except Exception as error:
        return f"error that is not ours: {type(error).__name__}: {str(error)[:300]!r}"
    if case.expect == "refusal":
        return f"took bad arguments, result {_short(result)}"
    return None if case.check is None else case.check(result)


def global_state() -> dict[str, str]:
    """What a user's process may see of torch, and what no call of ours may change."""
    return {
        "default dtype": str(torch.get_default_dtype()),
        "threads": str(torch.get_num_threads()),
        "grad mode": str(torch.is_grad_enabled()),
        "matmul precision": _of(torch.get_float32_matmul_precision),
        "fp32_precision": _of(lambda: torch.backends.fp32_precision),
        "mkldnn matmul": _of(lambda: torch.backends.mkldnn.matmul.fp32_precision),
        "cuda matmul": _of(lambda: torch.backends.cuda.matmul.fp32_precision),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "numpy errors": str(np.geterr()),
    }


def _of(read: Callable[[], object]) -> str:
    try:
        return str(read())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    return ", ".join(f"{k} {before[k]} -> {after[k]}" for k in before if before[k] != after[k])


def _is_ours(text: str, names: Sequence[str]) -> bool:
    return any(re.match(rf"{re.escape(name)}(\.\w+)?: ", text) for name in names)


def _fingerprints(inputs: Mapping[str, Any]) -> dict[str, int]:
    return {name: _fingerprint(value) for name, value in inputs.items()}


def _fingerprint(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            return 0
        plain = value.detach().resolve_neg().resolve_conj().flatten()
        plain = plain.clone(memory_format=torch.contiguous_format)
        return zlib.crc32(plain.view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return zlib.crc32(np.ascontiguousarray(value).tobytes())
    return zlib.crc32(repr(value).encode())


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:150]


def close(
    what: str, got: Any, want: Any, *, rtol: float = 1e-5, atol: float = 1e-6, where: Any = None
) -> str | None:
    """Compare a result with the oracle's; the complaint, or None.

    Args:
        what: names the value.
        got: tensor, array or number of ours.
        want: float64 value of the oracle.
        rtol: relative tolerance.
        atol: absolute tolerance, a number or an array.
        where: compare only there, bool; a NaN counts anywhere.
    """
    found = as_float64(got)
    right = as_float64(want)
    if found.shape != right.shape:
        return f"wrong value: {what} has shape {found.shape}, right is {right.shape}"
    if np.isnan(found).any() and not np.isnan(right[np.isnan(found)]).all():
        return f"NaN: {what} from finite input"
    with np.errstate(invalid="ignore", over="ignore"):
        far = ~(np.abs(found - right) <= atol + rtol * np.abs(right))
    far &= ~(found == right) & ~(np.isnan(found) & np.isnan(right))
    if where is not None:
        far &= where
    if not far.any():
        return None
    at = np.unravel_index(int(np.argmax(far)), far.shape) if far.shape else ()
    return f"wrong value: {what}{list(map(int, at))} is {found[at]:.9g}, right is {right[at]:.9g}"


def as_float64(value: Any) -> np.ndarray:
    """Any tensor, array or number as a float64 array."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu").double().numpy()
    return np.asarray(value, dtype=np.float64)


def first_complaint(*complaints: str | None) -> str | None:
    """The first of several checks that failed."""
    return next((c for c in complaints if c is not None), None)
