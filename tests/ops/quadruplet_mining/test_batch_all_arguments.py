"""What the batch-all losses refuse, and how they say it."""

from __future__ import annotations

import re

import pytest
import torch

from zsbir_fast.ops.quadruplet_mining import batch_all_quadruplet_loss, batch_all_triplet_loss

NAN = torch.full((6, 4), float("nan"))
ERRORS = [
    ({"sketches": torch.zeros(6)}, ValueError, "sketches must be [B, D], got [6]"),
    ({"sketches": torch.zeros(6, 4).long()}, TypeError, "sketches must be floating point, got"),
    ({"photos": torch.zeros(8, 3)}, ValueError, "photos must be 4 wide like sketches, got 3"),
    (
        {"photos": torch.zeros(8, 4).double()},
        TypeError,
        "photos must be torch.float32 like sketches, got torch.float64",
    ),
    (
        {"photos": torch.zeros(8, 4, device="meta")},
        ValueError,
        "photos must hold values, got a tensor on device meta",
    ),
    ({"sketches": NAN}, ValueError, "sketches must be finite, got nan in row 0"),
    (
        {"sketch_labels": torch.zeros(6)},
        TypeError,
        "sketch_labels must be integers, got torch.float",
    ),
    ({"photo_labels": torch.arange(6)}, ValueError, "photo_labels must be [8], got [6]"),
    (
        {"photo_labels": torch.zeros(8, dtype=torch.int64, device="meta")},
        ValueError,
        "photo_labels must be on cpu like photos, got meta",
    ),
    ({"preset": "ramln"}, ValueError, "preset must have a batch-all form, got 'ramln'"),
    (
        {"preset": "all"},
        ValueError,
        "preset must be one of triplet, domain_balanced, cross_symmetric, full, chen2017, ramln, ",
    ),
    (
        {"coefficients": (1, 1, 0, 0, -1)},
        ValueError,
        "coefficients must be five finite numbers, none negative, got (1, 1, 0, 0, -1)",
    ),
    ({"margins": (0.1,)}, ValueError, "margins must be five finite numbers, none negative, got"),
    (
        {"reduction": "none"},
        ValueError,
        "reduction must be one of mean_nonzero, mean, sum, got 'none'",
    ),
    (
        {"coefficients": (1, 1, 0, 0, 1)},
        ValueError,
        "reduction must be 'mean' or 'sum' where h5 meets h2 or h3, got 'mean_nonzero'",
    ),
    (
        {"distance": "l1"},
        ValueError,
        "distance must be one of euclidean, squared_euclidean, cosine, got 'l1'",
    ),
    ({"impl": "cuda"}, ValueError, "impl must be one of fused, reference, got 'cuda'"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_quadruplets_name_wrong_arguments(change, error, message):
    given = {
        "sketches": torch.zeros(6, 4),
        "photos": torch.zeros(8, 4),
        "sketch_labels": torch.arange(6),
        "photo_labels": torch.arange(8),
    }
    with pytest.raises(error, match=re.escape(f"batch_all_quadruplet_loss: {message}")):
        batch_all_quadruplet_loss(**{**given, **change})


TRIPLET_ERRORS = [
    (
        {"references": torch.zeros(8, 4)},
        ValueError,
        "reference_labels must be given with references, got None",
    ),
    (
        {"references": torch.zeros(8, 5), "reference_labels": torch.arange(8)},
        ValueError,
        "references must be 4 wide like anchors, got 5",
    ),
    (
        {"references": torch.zeros(8, 4).half(), "reference_labels": torch.arange(8)},
        TypeError,
        "references must be torch.float32 like anchors, got torch.float16",
    ),
    (
        {"references": torch.zeros(8, 4), "reference_labels": torch.arange(7)},
        ValueError,
        "reference_labels must be [8], got [7]",
    ),
    ({"labels": torch.arange(6).bool()}, TypeError, "labels must be integers, got torch.bool"),
    (
        {"labels": torch.zeros(6, dtype=torch.int64, device="meta")},
        ValueError,
        "labels must be on cpu like anchors, got meta",
    ),
    ({"anchors": NAN}, ValueError, "anchors must be finite, got nan in row 0"),
    ({"margin": float("nan")}, ValueError, "margin must be finite and not negative, got nan"),
    ({"margin": -1.0}, ValueError, "margin must be finite and not negative, got -1.0"),
    (
        {"reduction": "max"},
        ValueError,
        "reduction must be one of mean, mean_nonzero, sum, none, got 'max'",
    ),
    ({"distance": "l1"}, ValueError, "distance must be one of euclidean, squared_euclidean, "),
    ({"impl": "fast"}, ValueError, "impl must be one of fused, reference, got 'fast'"),
]


@pytest.mark.parametrize(("change", "error", "message"), TRIPLET_ERRORS)
def test_triplets_name_wrong_arguments(change, error, message):
    given = {"anchors": torch.zeros(6, 4), "labels": torch.arange(6)}
    with pytest.raises(error, match=re.escape(f"batch_all_triplet_loss: {message}")):
        batch_all_triplet_loss(**{**given, **change})
