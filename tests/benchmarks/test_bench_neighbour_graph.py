"""The bench of the graph: every provider finds the nearest photos, and a wrong one is noticed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench_neighbour_graph
from benchmarks.bench_neighbour_graph import SUITE
from benchmarks.retrieval_cases import Case

SMALL = Case("small", Q=12, G=900, C=3, strength=0.25, D=64, checked=12)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    SUITE.make_data(SMALL, folder)
    return SUITE.load_data(SMALL, folder)


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_every_provider_agrees_with_float64(name, data):
    provider = SUITE.providers[name]
    if provider.missing():
        pytest.skip(f"needs {provider.missing()}")
    prepared = provider.prepare(data, "cpu")
    result = np.asarray(prepared.run(40))
    assert SUITE.error(provider, data, result) < 1e-6
    assert SUITE.error(provider, data, result + 1e-3) > 1e-4
    if name != "product":
        assert result.shape == (40, bench_neighbour_graph.K)
    if name == "ours":
        prepared.floor(40)
    assert SUITE.work(provider, data, 3) == 2 * 3 * 900 * 64


@pytest.mark.parametrize(
    ("over", "mib", "words"), [(1.4, 200, "met met"), (1.6, 300, "MISSED MISSED")]
)
def test_verdicts(over, mib, words):
    row = SimpleNamespace(
        case="quickdraw", provider="ours", over_floor=over, peak_bytes=mib << 20, disturbed=False
    )
    result = SimpleNamespace(rows=[row], verdicts=[])
    SUITE.finish(result)
    assert " ".join(line.split(":")[0] for line in result.verdicts) == words
