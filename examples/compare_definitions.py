"""Why the same ranking reads 0.02 or 0.27: every definition on real features.

Embeds the unseen classes of the bundled benchmark with the bundled MobileNetV2 (untrained for
sketches) and evaluates the one ranking under every protocol.

    python examples/compare_definitions.py
"""

from __future__ import annotations

import argparse

import torch

import zsbir_fast as zf
from zsbir_fast.retrieval.embed import embed_with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--most", type=int, default=10**6, help="images of each modality")
    parser.add_argument("--ks", type=int, nargs="+", default=[10, 50, 100])
    arguments = parser.parse_args()

    benchmark = zf.load_benchmark("qd_caltech")
    encoder = zf.build_encoder(
        "bundled:mobilenet_v2", weights="imagenet", image_size=arguments.image_size
    ).eval()
    features, labels = [], []
    for images in (benchmark.test_sketches, benchmark.test_photos):
        chosen = images.subset(torch.randperm(len(images))[: arguments.most].tolist())
        features.append(embed_with(lambda x, _: encoder(x).global_, chosen, spec=encoder.spec))
        labels.append(chosen.labels)
    print(f"{len(features[0])} sketches search {len(features[1])} photos, 10 unseen classes\n")
    print(zf.compare_definitions(*features, *labels, ks=arguments.ks))


if __name__ == "__main__":
    main()
