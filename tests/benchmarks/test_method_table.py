"""The table that says what carries a method: its plans and its arithmetic."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from benchmarks import method_table
from benchmarks.method_variants import HEADLINE, STUDIES, variants
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.runs.settings import check_settings
from zsbir_fast.runs.zoo import Zoo, ZooRow


@pytest.mark.parametrize("study", STUDIES)
def test_every_variant_is_a_config_of_its_own(study):
    configs = method_table.study_configs(study)
    assert list(configs) == list(variants(study))
    shown = set()
    for settings in configs.values():
        check_settings(settings)
        assert settings.data.validation_classes == 0
        shown.add(repr(sorted(settings.flat().items(), key=str)))
    assert len(shown) == len(configs)


def test_noise_is_part_of_the_settings():
    configs = method_table.study_configs("dmwan-noise")
    assert len(configs) == 2 * len(HEADLINE)
    assert {s.data.label_noise for s in configs.values()} == {0.2, 0.4}
    assert configs["weights all 1; 40% of the pairs wrong"].data.label_noise == 0.4


def test_equal_weights_are_equal():
    import torch

    from zsbir_fast.ops.token_weighting import alignment_weights

    options = method_table.study_configs("dmwan")["weights all 1"].model["weighting"]
    local, whole = torch.rand(2, 9)
    assert options.get("form", "softmax") == "softmax"
    weights = alignment_weights(local, whole, mix=0.5, temperature=options["temperature"])
    torch.testing.assert_close(weights, torch.ones(9), rtol=0, atol=1e-5)


def test_differences_are_paired_and_have_a_standard_error():
    a, b = [0.5, 0.4, 0.6], [0.45, 0.41, 0.5]
    pairs = np.subtract(a, b)
    mean, error = method_table.differences(a, b)
    assert (mean, error) == pytest.approx((pairs.mean(), pairs.std(ddof=1) / math.sqrt(3)))
    assert math.isnan(method_table.differences([0.5], [0.4])[1])


def test_a_page_compares_with_the_first_of_its_group(tmp_path):
    rows = [
        ZooRow("shipped; 20% of the pairs wrong", [0.4, 0.5], [0.1, 0.1], seconds=[10.0, 12.0]),
        ZooRow("other; 20% of the pairs wrong", [0.5, 0.6], [0.1, 0.1], seconds=[10.0, 12.0]),
        ZooRow("shipped; 40% of the pairs wrong", [0.3, 0.4], [0.1, 0.1], seconds=[10.0, 12.0]),
        ZooRow("other; 40% of the pairs wrong", [0.4, 0.3], [0.1, 0.1], seconds=[10.0, 12.0]),
        ZooRow("frozen x, raw", [0.2], [0.1]),
    ]
    facts = {
        "versions": {"torch": "1"},
        "cpu": "C",
        "cpu_family_model": "1/2",
        "simd": [],
        "cores": 2,
        "threads": 2,
        "memory_GiB": 4,
        "date": "2026-01-01T00",
        "commit": "a",
    }
    text = method_table.page("dmwan-noise", Zoo(rows, {}, "AP as usual", tmp_path), facts)
    cells = [
        re.split(r"\s*\|\s*", line)[2:6] for line in text.splitlines() if line.startswith("| ")
    ]
    assert cells[1:] == [
        ["2", "0.450", "", ""],
        ["2", "0.550", "+0.100 *", "0.000"],
        ["2", "0.350", "", ""],
        ["2", "0.350", "+0.000", "0.100"],
    ]
    assert "frozen x, raw: 0.200" in text


def test_variants_build(monkeypatch):
    """All variants of CMAAN that change its form; DM-WAN's options have tests of their own."""
    for name, settings in method_table.study_configs("cmaan").items():
        encoder = {**settings.model["encoder"], "weights": None, "image_size": 32}
        identity = ModelIdentity.of(
            "cmaan", {**settings.model, "encoder": encoder}, ("cat", "dog", "car")
        )
        assert build_model(identity) is not None, name
