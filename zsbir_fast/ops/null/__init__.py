"""Rows as they are."""

from zsbir_fast.ops.null.functions import null

__all__ = ["null"]
