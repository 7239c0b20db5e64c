"""What the clusters of a gallery hold: sizes, classes, and the most central photos."""

from __future__ import annotations

import torch
from torch import Tensor

from zsbir_fast.data.images import ImageSet
from zsbir_fast.report.content import ClusterPicture, ClusterRow
from zsbir_fast.report.retrieval import retrieved


def cluster_picture(
    title: str,
    clusters: Tensor,
    distances: Tensor,
    photos: ImageSet,
    *,
    count: int,
    top: int = 10,
    most: int = 40,
    classes: int = 3,
) -> ClusterPicture:
    """Describe the clusters of a gallery.

    Args:
        title: heading.
        clusters: the cluster of every photo, integers [G] in [0, count).
        distances: of every photo to the centre of its cluster, float [G].
        photos: the gallery; its labels only describe the clusters.
        count: K, the number of clusters, empty ones among them.
        top: photos per cluster.
        most: clusters that get a row, the largest first.
        classes: classes that a row names.

    Returns:
        The picture; of clusters of one size the one of the smaller number comes first.

    Raises:
        ValueError: lengths do not fit together, or a cluster is out of range.
    """
    if not len(clusters) == len(distances) == len(photos):
        raise ValueError(
            "cluster_picture: clusters, distances and photos must agree in length, got "
            f"{len(clusters)}, {len(distances)} and {len(photos)}"
        )
    of_photo = clusters.long().cpu()
    if len(of_photo) and not 0 <= int(of_photo.min()) <= int(of_photo.max()) < count:
        raise ValueError(
            f"cluster_picture: clusters must be in [0, {count}), got {int(of_photo.min())} to "
            f"{int(of_photo.max())}"
        )
    # How many photos of each class a cluster holds: [K, classes].
    table = torch.zeros(count, len(photos.classes), dtype=torch.int64)
    table.index_put_((of_photo, photos.labels), torch.ones_like(of_photo), accumulate=True)
    sizes = table.sum(1)
    order = torch.argsort(sizes, descending=True, stable=True)
    return ClusterPicture(
        title=title,
        rows=[
            _row(table[c], torch.nonzero(of_photo == c)[:, 0], distances, photos, top, classes)
            for c in order[:most]
            if sizes[c] > 0
        ],
        clusters=count,
        empty=int((sizes == 0).sum()),
        purity=float(table.amax(1).sum()) / len(photos),
    )


def _row(
    counts: Tensor, members: Tensor, distances: Tensor, photos: ImageSet, top: int, classes: int
) -> ClusterRow:
    largest_first = torch.argsort(counts, descending=True, stable=True)
    central = members[torch.argsort(distances.cpu()[members], stable=True)[:top]]
    named = [int(c) for c in largest_first[:classes] if counts[c] > 0]
    return ClusterRow(
        size=len(members),
        classes={photos.classes[c]: float(counts[c]) / len(members) for c in named},
        photos=retrieved(photos, central.tolist(), named[0]),
    )
