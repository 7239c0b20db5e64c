"""A folder per kernel room: argument checks, schema, dispatch to CPU, CUDA or reference, autograd.

The only code that touches the compiled module ``zsbir_fast._C``.
"""
