"""Evaluate embeddings: in one call, against a gallery kept ready, from disk, and over processes.

python examples/evaluate_embeddings.py
torchrun --nproc-per-node 2 examples/evaluate_embeddings.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import zsbir_fast as zf


def embeddings(n: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stands for your model: float32 [n, 64] around one centre per class, and labels [n]."""
    centres = torch.randn(classes, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return centres[labels] + 3 * torch.randn(n, 64, generator=generator), labels


def main() -> None:
    photos, photo_labels = embeddings(20_000, classes=30, seed=1)
    sketches, sketch_labels = embeddings(300, classes=30, seed=2)

    result = zf.evaluate_retrieval(sketches, photos, sketch_labels, photo_labels, protocol="sake")
    print("one call\n", result)
    worst = min(result.per_class.items(), key=lambda item: item[1]["map"])
    print(f" hardest class: {worst[0]}, mAP {worst[1]['map']:.4f}\n")

    evaluator = zf.RetrievalEvaluator(protocol="sake")
    evaluator.add_gallery(photos, photo_labels)  # prepared once, at the first evaluate
    for epoch in range(3):
        noisy = sketches + (2 - epoch) * torch.randn_like(sketches)
        print(f"epoch {epoch}: mAP@all {evaluator.evaluate(noisy, sketch_labels).map:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.npy"
        np.save(path, photos.numpy())
        mapped = np.load(path, mmap_mode="r")  # a gallery larger than memory works the same way
        evaluator = zf.RetrievalEvaluator(protocol="sake")
        evaluator.add_gallery(mapped, photo_labels)
        print("\nfrom disk\n", evaluator.evaluate(sketches, sketch_labels))


def main_of_several() -> None:
    """Each process holds its part of the gallery; all get the result of the whole."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    photos, photo_labels = embeddings(20_000, classes=30, seed=1)
    part = slice(rank * len(photos) // size, (rank + 1) * len(photos) // size)
    evaluator = zf.RetrievalEvaluator(protocol="sake")
    evaluator.add_gallery(photos[part], photo_labels[part])
    result = evaluator.evaluate(*embeddings(300, classes=30, seed=2))
    if rank == 0:
        print(f"{size} processes\n", result)
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main_of_several()
    else:
        main()
