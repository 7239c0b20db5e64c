from __future__ import annotations

import builtins
import importlib

from zsbir_fast import env_report


def test_a_broken_package_is_reported_not_raised(monkeypatch):
    real = importlib.import_module

    def broken(name, *rest):
        if name in ("torch", "zsbir_fast._C"):
            raise OSError(f"cannot load {name}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    facts = env_report.collect()
    assert facts["torch"]["version"] == "unknown (OSError: cannot load torch)"
    assert facts["zsbir_fast"]["CUDA kernels"] == "unknown (OSError: cannot load zsbir_fast._C)"
    assert facts["packages"]["numpy"][0].isdigit()


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(env_report, "_OPTIONAL", {"no-such-package": "pip install it"})
    facts = env_report.collect()
    assert facts["optional packages"] == {"no-such-package": "not installed (pip install it)"}


def test_text_holds_every_fact():
    facts = {"one": {"a": "1"}, "two": {"longer": "2"}}
    assert env_report.as_text(facts) == "one\n  a       1\n\ntwo\n  longer  2"


def test_it_needs_only_the_standard_library(monkeypatch):
    real = builtins.__import__

    def guarded(name, *rest):
        if name.partition(".")[0] in ("torch", "numpy", "lightning", "jsonargparse"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
    importlib.reload(env_report)
