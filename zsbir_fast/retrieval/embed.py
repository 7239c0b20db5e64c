"""Turn images into embeddings, in batches, on one process or shared among many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from zsbir_fast._progress import with_progress
from zsbir_fast.data.image_spec import ImageSpec, Modality
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.transforms import eval_transform
from zsbir_fast.methods.contract import Method

_PLURAL = {"sketch": "sketches", "photo": "photos"}
Embed = Callable[[Tensor, Modality], Tensor]


def embed_images(
    model: Method,
    images: ImageSet,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """Embed every image of a set with a trained model, in evaluation mode.

    In an initialised ``torch.distributed`` job each process embeds its share, and all of them
    return the whole.

    Args:
        model: the model, e.g. from :func:`zsbir_fast.load_model`.
        images: sketches or photos; their transform is replaced by the model's own.
        batch_size: images per forward pass.
        workers: processes that load images; 0 loads in this one.
        device: where the model is moved to and runs; default: where it is.
        progress: show progress.

    Returns:
        float32 [n, D] on the CPU, row i for image i.

    Raises:
        ValueError: ``images`` is empty, or ``embed`` gives another shape.
    """
    where = next(model.parameters()).device if device is None else torch.device(device)
    dtype = next(model.parameters()).dtype

    def embed(batch: Tensor, modality: Modality) -> Tensor:
        return model.embed(batch.to(dtype), modality)  # of a run in float64, in float64

    with evaluating(model.to(where)):
        return embed_with(
            embed,
            images,
            spec=model.image_spec(),
            batch_size=batch_size,
            workers=workers,
            device=where,
            progress=f"embedding {_PLURAL[images.modality]}" if progress else None,
        )


def embed_with(
    embed: Embed,
    images: ImageSet,
    *,
    spec: ImageSpec,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Tensor:
    """Embed every image of a set with a function, as :func:`embed_images` does with a model.

    Args:
        embed: ``(images [B, 3, H, W], modality) -> [B, D]``.
        images: the images; their transform is replaced by the evaluation transform of ``spec``.
        spec: size and normalisation of the images.
        batch_size: images per call of ``embed``.
        workers: processes that load images.
        device: where the images are sent.
        progress: words of the shown progress; None shows none.

    Returns:
        float32 [n, D] on the CPU, row i for image i.

    Raises:
        ValueError: ``images`` is empty, or ``embed`` gives another shape.
    """
    if len(images) == 0:
        raise ValueError("embed_images: images must hold at least one image, got none")
    prepared = images.with_transform(eval_transform(*spec, modality=images.modality))
    rank, world = _place()
    share = Subset(prepared, range(rank, len(prepared), world))
    loader: DataLoader[Any] = DataLoader(
        share,
        batch_size=batch_size,
        num_workers=workers,
        generator=torch.Generator(),  # so that starting it draws nothing from the global one
    )
    batches = with_progress(loader, len(loader), progress, unit="batches") if progress else loader
    rows: list[Tensor] = []
    with torch.inference_mode():
        for batch, _ in batches:
            rows.append(
                _checked(embed(batch.to(device), images.modality), len(batch)).float().cpu()
            )
    mine = torch.cat(rows) if rows else torch.empty(0)
    return mine if world == 1 else _join_shares(mine, len(prepared), device)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode, and every part of it back as it was.

    Args:
        model: the model.

    Yields:
        The model.
    """
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        yield model
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]


def _checked(rows: Tensor, count: int) -> Tensor:
    if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != count:
        got = list(rows.shape) if isinstance(rows, Tensor) else f"a {type(rows).__name__}"
        raise ValueError(
            f"embed_images: embed must give [{count}, D] for {count} images, got {got}"
        )
    return rows


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _join_shares(mine: Tensor, total: int, device: torch.device | str) -> Tensor:
    """Bring the shares (rank, rank + world, ...) of all processes together in order."""
    world = torch.distributed.get_world_size()
    longest = -(-total // world)
    width = torch.tensor(mine.shape[1] if mine.ndim == 2 else 0, device=device)
    torch.distributed.all_reduce(width, op=torch.distributed.ReduceOp.MAX)
    padded = torch.zeros(longest, int(width), device=device)
    if mine.ndim == 2:
        padded[: len(mine)] = mine.to(device)
    shares = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(shares, padded)
    return torch.stack(shares, dim=1).flatten(0, 1)[:total].cpu()
