"""One batch out of those of all processes, for losses that compare images within a batch.

Every process joins the batches and computes the whole loss. In the backward pass the gradients of
all processes are summed and each takes the part of its own rows. ``DistributedDataParallel`` then
averages over the W processes, so W equal losses come to exactly the gradient that one process
would have on the joined batch. Because the sum is a true one, the gradient is right, too, where the
processes' losses differ: their mean is minimised.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from zsbir_fast.ops._checks import check_tensor

ProcessGroup = Any  # torch.distributed.ProcessGroup, which builds without distributed lack
Gather = Literal["auto", "off"]
CPU = torch.device("cpu")


class Share(NamedTuple):
    """Which rows of the joined batch are those of this process.

    Attributes:
        counts: rows of every process, by rank.
        rank: number of this process in the group.
        process_group: the processes; None is the default one.
    """

    counts: tuple[int, ...]
    rank: int
    process_group: ProcessGroup

    @classmethod
    def alone(cls, rows: int) -> Share:
        """The share of a process that joins no other."""
        return cls((rows,), 0, None)

    @property
    def own(self) -> slice:
        """The rows of this process."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + self.counts[self.rank])

    def join(self, rows: Tensor) -> Tensor:
        """Join [B, ...] of every process to [sum of B, ...], in the order of the ranks.

        Gradients flow back to every process's rows. All processes must call it, and all must run
        the backward pass.
        """
        if len(self.counts) == 1:
            return rows
        joined: Tensor = _Join.apply(rows, self)
        return joined


def process_count(process_group: ProcessGroup = None) -> int:
    """Number of processes in a group; 1 where ``torch.distributed`` is not initialised.

    Args:
        process_group: the processes; None is the default one.

    Returns:
        At least 1.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size(process_group)
    return 1


def gather_with_gradient(features: Tensor, process_group: ProcessGroup = None) -> Tensor:
    """Join the features of all processes, so that gradients flow back to each of them.

    With it a loss of the joined batch, computed on every process, trains a model in
    ``DistributedDataParallel`` exactly as one process would on that batch: no factor is needed.

    Args:
        features: [B, ...] float; B may differ between processes.
        process_group: the processes; None is the default one, or this process alone where
            ``torch.distributed`` is not initialised.

    Returns:
        [sum of B, ...] in the order of the ranks, the same on all.

    Raises:
        ValueError: the processes' features differ in width or dtype; raised on all of them.
    """
    (share,) = share_rows("gather_with_gradient", process_group, features=features)
    return share.join(features)


def gather_labels(labels: Tensor, process_group: ProcessGroup = None) -> Tensor:
    """Join the labels of all processes, in the order of :func:`gather_with_gradient`.

    Args:
        labels: [B] int64; B may differ between processes.
        process_group: the processes; None is the default one.

    Returns:
        [sum of B] int64.

    Raises:
        ValueError: the processes' labels differ in dtype or shape beyond B; raised on all.
    """
    (share,) = share_rows("gather_labels", process_group, labels=labels)
    return share.join(labels)


def share_rows(
    function: str,
    process_group: ProcessGroup = None,
    check: Callable[[], None] | None = None,
    *,
    gather: Gather = "auto",
    **rows: Tensor,
) -> tuple[Share, ...]:
    """Tell all processes how many rows each has, and fail together if something is wrong.

    Args:
        function: the caller, for messages.
        process_group: the processes; None is the default one.
        check: raises ValueError or TypeError if this process's input is wrong.
        gather: ``"off"``: this process alone.
        rows: [B, ...] tensors by name.

    Returns:
        One share per tensor.

    Raises:
        ValueError, TypeError: what ``check`` raised here; or widths or dtypes differ.
        RuntimeError: ``check`` failed on another process.
    """

    def check_all() -> None:
        if check is not None:
            check()
        for argument, x in rows.items():
            check_tensor(function, argument, x)
            if x.ndim == 0:
                raise ValueError(f"{function}: {argument} must be [B, ...], got a single number")

    size = process_count(process_group) if gather == "auto" else 1
    if size == 1:
        check_all()
        return tuple(Share.alone(len(x)) for x in rows.values())
    problem = _problem_of(check_all)
    entries = [int(problem is not None)]
    for x in rows.values():  # those of a wrong batch are not looked at
        if problem is not None:
            entries += [0, 0]
        else:
            entries += [len(x), zlib.crc32(repr((x.dtype, tuple(x.shape[1:]))).encode())]
    table = _exchange(entries, _device_of(rows.values(), process_group), size, process_group)
    if problem is not None:
        raise problem
    for rank, (failed, *_) in enumerate(table):
        if failed:
            raise RuntimeError(f"{function}: process {rank} of {size} failed, see its message")
    for index, argument in enumerate(rows):
        kinds = [row[2 + 2 * index] for row in table]
        for rank, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise ValueError(
                    f"{function}: {argument} must have the same width and dtype on all processes, "
                    f"got others in process {rank} than in process 0"
                )
    rank = dist.get_rank(process_group)
    return tuple(
        Share(tuple(row[1 + 2 * index] for row in table), rank, process_group)
        for index in range(len(rows))
    )


def shared_seed(device: torch.device, process_group: ProcessGroup = None) -> int:
    """Draw a seed from the global random numbers of the first process, the same for all.

    Args:
        device: where the group can exchange tensors.
        process_group: the processes; None is the default one.

    Returns:
        A seed of 62 bits.
    """
    drawn = int(torch.randint(1 << 62, ()))
    return _exchange([drawn], device, process_count(process_group), process_group)[0][0]


def _device_of(rows: Iterable[object], process_group: ProcessGroup) -> torch.device:
    """Where the processes exchange numbers: beside the rows, or, if those are wrong, anywhere."""
    kinds = ("cuda",) if dist.get_backend(process_group) == "nccl" else ("cpu", "cuda")
    for x in rows:
        if isinstance(x, Tensor) and x.device.type in kinds:
            return x.device
    return torch.device("cuda", torch.cuda.current_device()) if kinds[0] == "cuda" else CPU


def _problem_of(check: Callable[[], None]) -> Exception | None:
    try:
        check()
    except (TypeError, ValueError) as error:
        return error
    return None


def _exchange(
    entries: list[int], device: torch.device, size: int, process_group: ProcessGroup
) -> list[list[int]]:
    """The entries of every process, by rank."""
    mine = torch.tensor(entries, dtype=torch.int64, device=device)
    parts = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(parts, mine, group=process_group)
    table: list[list[int]] = torch.stack(parts).tolist()
    return table


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        longest = max(share.counts)
        padded = rows.contiguous()
        if len(rows) < longest:  # collectives want equal shapes
            padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in share.counts]
        dist.all_gather(parts, padded, group=share.process_group)
        return torch.cat([part[:count] for part, count in zip(parts, share.counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.share.process_group)
        return total[ctx.share.own], None
