"""The processes that evaluate one gallery together; one alone is a group of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

ProcessGroup = Any  # torch.distributed.ProcessGroup, which builds without distributed lack
_T = TypeVar("_T")


class Processes:
    """A ``torch.distributed`` group, or this process alone.

    Args:
        caller: public function, for messages.
        process_group: a group of which this process is a member; ``"local"``: this process alone;
            None: the default group if one is initialised, else this process alone.

    Raises:
        ValueError: this process is no member of the group.

    Attributes:
        rank: number of this process in the group.
        size: number of processes.
    """

    def __init__(self, caller: str, process_group: ProcessGroup | Literal["local"] | None) -> None:
        self.rank, self.size = 0, 1
        self._process_group = None
        if process_group == "local" or not (dist.is_available() and dist.is_initialized()):
            return
        self._process_group = process_group
        self.rank, self.size = dist.get_rank(process_group), dist.get_world_size(process_group)
        if self.rank < 0:
            raise ValueError(f"{caller}: this process must be a member of process_group, it is not")

    def together(self, caller: str, work: Callable[[], _T]) -> _T:
        """Run ``work`` everywhere; if it fails in one process, raise in all, so that none waits.

        Raises:
            ValueError, TypeError: what ``work`` raised here.
            RuntimeError: it failed in another process.
        """
        if self.size == 1:
            return work()
        result, problem = None, None
        try:
            result = work()
        except (TypeError, ValueError) as error:
            problem = error
        problems = self.gather(None if problem is None else str(problem))
        if problem is not None:
            raise problem
        for rank, text in enumerate(problems):
            if text is not None:
                raise RuntimeError(f"{caller}: process {rank} of {self.size} failed: {text}")
        return result  # type: ignore[return-value]

    def gather(self, value: _T) -> list[_T]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._process_group)
        return values

    def add_(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=self._process_group)
        return tensor

    def check_device(self, caller: str, device: torch.device) -> None:
        """Raise unless the group can sum tensors on that device.

        Raises:
            ValueError: the queries are on the CPU and the group's backend is NCCL alone.
        """
        if (
            self.size > 1
            and device.type == "cpu"
            and dist.get_backend(self._process_group) == "nccl"
        ):
            raise ValueError(
                f"{caller}: queries must be on a CUDA device, as the process group's backend is "
                "nccl, got cpu"
            )
