"""docs/api.md is what the docstrings say, for every public name."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path

import pytest

import zsbir_fast as zf

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def api_page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        spec = importlib.util.spec_from_file_location("api_page", TOOLS / "api_page.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        sys.modules.pop("api_sources")


@pytest.fixture(scope="module")
def committed(api_page):
    return api_page.PAGE.read_text(encoding="utf-8")


def test_the_committed_page_is_up_to_date(api_page, committed):
    current = api_page.page()
    assert committed == current, f"docs/api.md differs from the docstrings: {api_page.COMMAND}"


def test_every_public_name_is_there_once_in_its_group(committed):
    headings = re.findall(r"^(##|###) `?(\w[^`\n]*)`?$", committed, re.MULTILINE)
    groups = {}
    for level, text in headings:
        if level == "##":
            names = groups.setdefault(text, [])
        else:
            names.append(text)
    assert groups == {**{group: list(names) for group, names in zf._PUBLIC.items()}, "Types": []}
    assert {"__version__", *itertools.chain(*groups.values())} == set(zf.__all__)


def test_links_lead_to_headings_and_files(api_page, committed):
    headings = re.findall(r"^#+ (.+)$", committed, re.MULTILINE)
    anchors = [re.sub(r"[`.,]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(anchors) == len(set(anchors))
    links = re.findall(r"\]\((.+?)\)", committed)
    assert len(links) > 70
    for link in set(links):
        if link.startswith("#"):
            assert link[1:] in anchors
        else:
            assert (api_page.PAGE.parent / link).is_file()


INIT = '_PUBLIC = {"Sums": {"add": "zsbir_fast.sums", "Total": "zsbir_fast.sums"}}\n'
SUMS = '''
from typing import NamedTuple
from zsbir_fast.kinds import Kind as Kind, Total

class Unseen: ...

def add(a: int, /, *more: int, kind: Kind = "plain", **names: int) -> "Total":
    """Add numbers.

    More of it, see :class:`zsbir_fast.Total` and ``sum``.

    Args:
        a: the first, which goes on
            here.
        *more: others: as many as you like.
        kind: how.

    Returns:
        The total.

    Raises:
        ValueError, TypeError: something is wrong.

    Example:
        >>> add(1)
        1

    Source: schools.
    """
'''
KINDS = '''
from typing import Literal
Shape = Literal["round"]
Kind = Literal["plain", Shape]

class Total(NamedTuple):
    """A total.

    Attributes:
        value: the number.
    """

    value: int = 0

    @property
    def half(self) -> float:
        """Half of it."""

    @classmethod
    def of(cls, values: list[int]) -> "Total":
        """Make one."""

    def extra_repr(self): ...
    def _hidden(self): ...
'''
PAGE = """\
- Sums: [`add`](#add), [`Total`](#total)

## Sums

### `add`

[zsbir_fast/sums.py](../zsbir_fast/sums.py)

```python
add(a: int, /, *more: int, kind: Kind = "plain", **names: int) -> "Total"
```

Add numbers.

More of it, see [`Total`](#total) and `sum`.

**Arguments**

- `a`: the first, which goes on here.
- `*more`: others: as many as you like.
- `kind`: how.

**Returns**

The total.

**Raises**

- `ValueError`, `TypeError`: something is wrong.

```pycon
>>> add(1)
1
```

Source: schools.

### `Total`

[zsbir_fast/kinds.py](../zsbir_fast/kinds.py)

```python
Total(value: int = 0)
```

A total.

**Attributes**

- `value`: the number.

**Properties**

- `half` (`float`): Half of it.

#### `Total.of`

```python
Total.of(values: list[int]) -> "Total"
```

Make one.

## Types

| in a signature | is |
|---|---|
| `Kind` | `Literal["plain", Shape]` |
| `Shape` | `Literal["round"]` |
"""


@pytest.fixture
def toy(tmp_path):
    package = tmp_path / "zsbir_fast"
    package.mkdir()
    for name, text in (("__init__", INIT), ("sums", SUMS), ("kinds", KINDS)):
        (package / f"{name}.py").write_text(text)
    return tmp_path


def test_a_page_is_made_of_signatures_and_docstrings(api_page, toy):
    made = api_page.page(toy)
    assert made[made.index("- Sums") :] == PAGE


def test_names_that_are_nowhere_are_named(api_page, toy):
    (toy / "zsbir_fast" / "__init__.py").write_text('_PUBLIC = {"S": {"sub": "zsbir_fast.sums"}}')
    with pytest.raises(LookupError, match=r"sub must be defined or imported in zsbir_fast\.sums"):
        api_page.page(toy)
    (toy / "zsbir_fast" / "__init__.py").write_text("")
    with pytest.raises(LookupError, match=r"__init__\.py must have a table _PUBLIC"):
        api_page.page(toy)
