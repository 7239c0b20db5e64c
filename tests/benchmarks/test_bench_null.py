"""The bench of null: every provider gives the rows, and a wrong result is noticed."""

from __future__ import annotations

import pytest

from benchmarks.bench_null import SUITE, Case


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_every_provider_gives_the_rows(name, tmp_path):
    case = Case("small", B=7, D=3)
    SUITE.make_data(case, tmp_path)
    data = SUITE.load_data(case, tmp_path)
    provider = SUITE.providers[name]
    result = provider.prepare(data, "cpu").run(SUITE.items(data))
    assert SUITE.error(provider, data, result) == 0
    assert SUITE.error(provider, data, result + 1) == pytest.approx(1)
