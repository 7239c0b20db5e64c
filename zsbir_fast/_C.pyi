"""What mypy sees of the compiled module, whose functions take addresses: csrc/bindings.cpp."""

from typing import Any

def __getattr__(name: str) -> Any: ...
