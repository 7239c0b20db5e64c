"""Products of all rows of two matrices whose bits depend on the two rows alone."""

from zsbir_fast.ops.row_products.functions import (
    bfloat16_is_faster,
    pack_rows,
    packed_like,
    panel_rows,
    row_products,
    row_squares,
)

__all__ = [
    "bfloat16_is_faster",
    "pack_rows",
    "packed_like",
    "panel_rows",
    "row_products",
    "row_squares",
]
