"""Turn images into embeddings, in batches, on one process or shared among many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.transforms import eval_transform

Modality = Literal["sketch", "photo"]
_PLURAL = {"sketch": "sketches", "photo": "photos"}
Embed = Callable[[Tensor, Modality], Tensor]


def embed_images(
    embed: Embed,
    images: ImageSet,
    *,
    encoder: Any,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Tensor:
    """Embed every image of a set.

    In an initialised ``torch.distributed`` job each process embeds its share, and all of them
    return the whole.

    Args:
        embed: ``(images [B, 3, H, W], modality) -> [B, D]``, e.g. ``model.embed``.
        images: the images; their transform is replaced by the encoder's evaluation transform.
        encoder: gives ``image_size``, ``mean`` and ``std``.
        batch_size: images per call of ``embed``.
        workers: processes that load images.
        device: where the images are sent.
        progress: text of a progress bar; None shows none.

    Returns:
        float32 [n, D] on the CPU, row i for image i.

    Raises:
        ValueError: ``images`` is empty.
    """
    if len(images) == 0:
        raise ValueError("embed_images: images must hold at least one image, got none")
    transform = eval_transform(
        encoder.image_size, mean=encoder.mean, std=encoder.std, modality=images.modality
    )
    prepared = images.with_transform(transform)
    rank, world = _place()
    share = Subset(prepared, range(rank, len(prepared), world))
    loader: DataLoader[Any] = DataLoader(
        share,
        batch_size=batch_size,
        num_workers=workers,
        generator=torch.Generator(),  # so that starting it draws nothing from the global one
    )
    rows: list[Tensor] = []
    with torch.inference_mode():
        for batch, _ in _with_bar(loader, progress):
            rows.append(embed(batch.to(device), images.modality).float().cpu())
    mine = torch.cat(rows) if rows else torch.empty(0)
    return mine if world == 1 else _join_shares(mine, len(prepared), device)


def embed_pair(
    model: Any, sketches: ImageSet, photos: ImageSet, *, progress: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    """Embed sketches and photos with a trained model, in evaluation mode.

    Args:
        model: gives ``embed`` and ``encoder``.
        sketches: the queries.
        photos: the gallery.
        progress: show progress bars.
        options: ``batch_size``, ``workers`` and ``device`` of ``embed_images``.

    Returns:
        float32 [Q, D] and [G, D] on the CPU.

    Raises:
        ValueError: a set is empty.
    """
    with evaluating(model):
        queries, gallery = (
            embed_images(
                model.embed,
                images,
                encoder=model.encoder,
                progress=f"embedding {_PLURAL[images.modality]}" if progress else None,
                **options,
            )
            for images in (sketches, photos)
        )
    return queries, gallery


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Any:
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


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _with_bar(loader: DataLoader[Any], progress: str | None) -> Any:
    if progress is None:
        return loader
    from tqdm.auto import tqdm

    return tqdm(loader, desc=progress, unit="batch", leave=False)


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
