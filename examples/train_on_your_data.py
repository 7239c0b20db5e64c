"""Train on a folder of your own, and search classes that the model was not trained on.

The folder holds one folder per class, with the same class names on both sides:

    your_data/sketch/<class>/*.png
    your_data/photo/<class>/*.jpg

Run:

    python examples/train_on_your_data.py your_data --unseen zebra --unseen piano --out runs/mine
"""

from __future__ import annotations

import argparse

import zsbir_fast as zf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with sketch/ and photo/")
    parser.add_argument("--unseen", action="append", required=True, help="class not to train on")
    parser.add_argument("--out", default="runs/your-data", help="folder of the run")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="training steps per epoch")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--classes-per-batch", type=int, default=8)
    arguments = parser.parse_args()

    settings = zf.Settings(
        method="dmwan",
        model={
            "encoder": {
                "name": "bundled:mobilenet_v2",  # or "timm:<model>", "open_clip:<model>"
                "weights": "imagenet",
                "image_size": arguments.image_size,
            },
            "weighting": {"kind": "pairwise"},  # "text" also learns from words of the class names
            "terms": {"contrastive": 1.0, "distill": 1.0},
            "centre": True,
        },
        data=zf.DataConfig(
            name="your-data",
            root=arguments.root,
            unseen=arguments.unseen,
            validation_classes=0,  # hold some seen classes out once you have more than a few
            classes_per_batch=arguments.classes_per_batch,
        ),
        optim=zf.OptimConfig(lr_backbone=1e-4, lr_head=1e-3, warmup_steps=10),
        run=zf.RunConfig(
            out=arguments.out, epochs=arguments.epochs, steps_per_epoch=arguments.steps
        ),
    )
    run = zf.train(settings)
    print(run.result)
    for label, values in run.result.per_class.items():
        print(f"{run.benchmark.unseen[label]:<20} mAP@all {values['map']:.3f}")
    print(f"the model: {arguments.out}/model")


if __name__ == "__main__":
    main()
