"""The variants of a method whose worth is asked: shipped, and with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]

_SENTENCES = {"weighting": {"text_source": "glove:sentences"}}
_NO_WEIGHTS = {"weighting": {"temperature": 1e6}}  # of a softmax that is 1 on average

DMWAN: dict[str, Changes] = {
    "shipped": {},
    "weights all 1": _NO_WEIGHTS,
    "weights at temperature 0.1": {"weighting": {"temperature": 0.1}},
    "weights from local scores alone": {"weighting": {"mix": 1.0}},
    "weights from global scores alone": {"weighting": {"mix": 0.0}},
    "text: words of sentences": _SENTENCES,
    "text: words of sentences, temperature 0.1": {
        "weighting": {"text_source": "glove:sentences", "temperature": 0.1}
    },
    "triplets in place of quadruplets": {"loss": {"preset": "triplet"}},
    "without the alignment loss": {"terms": {"align": 0.0}},
    "without the classification": {"terms": {"cls": 0.0}},
    "without the contrastive loss (ours)": {"terms": {"contrastive": 0.0}},
    "without the distillation (ours)": {"terms": {"distill": 0.0}},
    "without centring (ours)": {"centre": False},
    "without the mirror image (ours)": {"mirror": False, "mirror_scale": 1.0},
}

CMAAN: dict[str, Changes] = {
    "shipped": {},
    "text: names in place of descriptions": {"text": {"source": "glove", "prompts": None}},
    "no text: images exchange with nothing": {"exchange": {"partner": "none"}},
    "no text: images exchange with each other": {"exchange": {"partner": "image"}},
    "without the global loss": {"loss": {"tri": 0.0}},
    "without the local loss": {"loss": {"rn": 0.0}},
    "ranked by relation score": {"rank_by": "relation"},
}

NOISE = (0.2, 0.4)
HEADLINE = ("shipped", "weights all 1", "weights at temperature 0.1",
            "text: words of sentences", "text: words of sentences, temperature 0.1")  # fmt: skip


def variants(study: str) -> dict[str, tuple[Changes, float]]:
    """Give the variants of a study.

    Args:
        study: ``"dmwan"``, ``"cmaan"``, or ``"dmwan-noise"``: the weights of DM-WAN where a share
            of the training pairs is wrong.

    Returns:
        Name -> (changes of the method's arguments, share of wrong labels).
    """
    if study == "dmwan-noise":
        return {
            f"{name}; {share:.0%} of the pairs wrong": (DMWAN[name], share)
            for share in NOISE
            for name in HEADLINE
        }
    return {name: (changes, 0.0) for name, changes in STUDIES[study].items()}


STUDIES: dict[str, dict[str, Changes]] = {"dmwan": DMWAN, "cmaan": CMAAN, "dmwan-noise": {}}
