from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from zsbir_fast.report.charts import line_chart
from zsbir_fast.report.content import Curve
from zsbir_fast.report.pictures import data_uri, read_thumbnail


def _decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_grey_image_is_kept_exactly():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for image in (grey, np.repeat(grey[..., None], 3, axis=2)):
        uri = data_uri(image)
        assert uri.startswith("data:image/png;base64,")
        np.testing.assert_array_equal(np.asarray(_decode(uri)), grey)


def test_coloured_image_becomes_jpeg():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 0] = 200
    uri = data_uri(image)
    assert uri.startswith("data:image/jpeg;base64,")
    assert np.abs(np.asarray(_decode(uri)).astype(int) - image).max() < 10


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros((2, 2)), TypeError, "data_uri: image must be uint8, got float64"),
        (np.zeros(3, np.uint8), ValueError, r"data_uri: image must be .*, got \[3\]"),
        (np.zeros((2, 2, 4), np.uint8), ValueError, r"data_uri: image must be .*, got \[2, 2, 4\]"),
    ],
)
def test_bad_image(image, error, text):
    with pytest.raises(error, match=text):
        data_uri(image)


def test_thumbnail_keeps_the_aspect(tmp_path):
    Image.new("L", (200, 100), 7).save(tmp_path / "x.png")
    thumbnail = read_thumbnail(tmp_path / "x.png", side=50)
    assert thumbnail.shape == (25, 50, 3)
    assert (thumbnail == 7).all()


def _line(svg):
    points = re.search(r'points="([^"]+)"', svg).group(1)
    return [tuple(map(float, p.split(","))) for p in points.split()]


def test_chart_places_points_in_order_and_inside():
    svg = line_chart(Curve("c", "step", {"a": [(0, 1.0), (5, 3.0), (10, 2.0)]}))
    (x0, y0), (x1, y1), (x2, y2) = _line(svg)
    assert 0 < x0 < x1 < x2 <= 640
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.2)
    assert 0 < y1 < y2 < y0 < 240  # larger values stand higher


def test_chart_of_one_constant_point_and_of_nan():
    assert "polyline" in line_chart(Curve("c", "x", {"a": [(1, 1.0), (2, float("nan"))]}))


def test_chart_escapes_its_texts():
    svg = line_chart(Curve("<t>", "<x>", {"a": [(0, 0.0)]}))
    assert "<t>" not in svg
    assert "&lt;x&gt;" in svg


def test_chart_without_a_point():
    with pytest.raises(ValueError, match="line_chart: curve must have a finite point, got none in"):
        line_chart(Curve("c", "x", {"a": []}))
