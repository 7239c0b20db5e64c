"""Load sketches and photos, look at them, and draw training batches.

Run with nothing to see the bundled benchmark, or on a folder of your own:

    python examples/load_your_dataset.py
    python examples/load_your_dataset.py your_data --unseen zebra --unseen piano

Your folder holds one folder per class, with the same class names on both sides:

    your_data/sketch/<class>/*.png
    your_data/photo/<class>/*.jpg
"""

from __future__ import annotations

import argparse

from torch.utils.data import DataLoader

import zsbir_fast as zf
from zsbir_fast.data.pairs import SketchPhotoPairs
from zsbir_fast.data.samplers import ClassBalancedBatchSampler
from zsbir_fast.data.transforms import train_transform


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", help="folder with sketch/ and photo/")
    parser.add_argument("--unseen", action="append", help="class not to train on")
    arguments = parser.parse_args()

    if arguments.root:
        benchmark = zf.load_benchmark("your-data", arguments.root, unseen=arguments.unseen)
    else:
        benchmark = zf.load_benchmark()
    print(f"{benchmark.name}: {len(benchmark.seen)} seen, {len(benchmark.unseen)} unseen classes")
    print("unseen:", ", ".join(benchmark.unseen))
    for part in ("train_sketches", "train_photos", "test_sketches", "test_photos"):
        # Decode every image once, so that a damaged file does not stop the training later.
        images = getattr(benchmark, part).check_images()
        print(f"{part:<14} {len(images):>6} images")

    sketches, photos = (
        images.with_transform(
            train_transform(128, mean=(0.5,) * 3, std=(0.5,) * 3, modality=images.modality)
        )
        for images in (benchmark.train_sketches, benchmark.train_photos)
    )
    batches = ClassBalancedBatchSampler(
        sketches.labels,
        photos.labels,
        classes_per_batch=min(8, len(benchmark.seen)),
        sketches_per_class=2,
        photos_per_class=2,
        batches=3,
    )
    for batch in DataLoader(SketchPhotoPairs(sketches, photos), batch_sampler=batches):
        shape = "x".join(map(str, batch["sketches"].shape))
        classes = sorted({benchmark.seen[i] for i in batch["labels"].tolist()})
        print(f"batch: {shape} sketches and as many photos of {', '.join(classes)}")

    text = zf.ClassText(benchmark.seen)
    for name, words, origin in list(zip(text.classes, text.words, text.origins, strict=True))[:3]:
        print(f"words of {name} ({origin}): {', '.join(words)}")


if __name__ == "__main__":
    main()
