from __future__ import annotations

import pytest
import torch
from PIL import Image

from zsbir_fast.data.images import ImageSet
from zsbir_fast.report.clusters import cluster_picture

CLASSES = ("ant", "bee", "cat", "dog")
LABELS = [0, 1, 1, 2, 1, 0, 3, 0]
CLUSTERS = [4, 1, 1, 1, 1, 4, 0, 1]
DISTANCES = [0.5, 0.4, 0.1, 0.2, 0.3, 0.5, 0.0, 0.9]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{i}.png" for i in range(len(LABELS))]
    for i, path in enumerate(paths):
        Image.new("L", (4, 4), 10 * i).save(path)
    return ImageSet(tuple(paths), torch.tensor(LABELS), CLASSES, "photo")


def picture(photos, **options):
    options = {"count": 5, **options}
    return cluster_picture(
        "all", torch.tensor(CLUSTERS, dtype=torch.int32), torch.tensor(DISTANCES), photos, **options
    )


def test_clusters_are_told_by_size_class_and_most_central_photos(photos):
    p = picture(photos, top=3)
    assert (p.title, p.clusters, p.empty) == ("all", 5, 2)
    assert [row.size for row in p.rows] == [5, 2, 1]
    first, second, third = p.rows
    assert first.classes == pytest.approx({"bee": 3 / 5, "ant": 1 / 5, "cat": 1 / 5})
    # By distance: photos 2, 3 and 4; the grey of a photo is ten times its number.
    shown = [(item.label, item.hit, int(item.image[0, 0, 0])) for item in first.photos]
    assert shown == [("bee", True, 20), ("cat", False, 30), ("bee", True, 40)]
    assert [item.image[0, 0, 0] for item in second.photos] == [0, 50]  # equally far: gallery order
    assert third.classes == {"dog": 1.0}
    assert p.purity == pytest.approx((3 + 2 + 1) / 8)


def test_only_the_largest_clusters_and_classes_get_a_row(photos):
    p = picture(photos, most=1, classes=1)
    assert [row.size for row in p.rows] == [5]
    assert list(p.rows[0].classes) == ["bee"]
    assert (p.clusters, p.empty, p.purity) == (5, 2, 6 / 8)


def test_other_lengths_and_numbers_are_refused(photos):
    with pytest.raises(ValueError, match="must agree in length, got 7, 8 and 8"):
        cluster_picture("", torch.zeros(7), torch.zeros(8), photos, count=1)
    with pytest.raises(ValueError, match=r"clusters must be in \[0, 4\), got 0 to 4"):
        picture(photos, count=4)
