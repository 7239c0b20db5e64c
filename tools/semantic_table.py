"""Make the bundled table of similarities between classes of sketches and classes of ImageNet.

    python -m tools.semantic_table --wordnet ~/nltk_data

Needs nltk and its corpus WordNet 3.0 (``nltk.download("wordnet")``), neither of which the package
needs. For every class of the published splits and of qd_caltech: 1 for an ImageNet class that is
the same thing or a kind of it; else the path similarity of WordNet, 1 / (1 + steps), where it is
above 0.2.

Source: the semantic mask of Liu et al., "Semantic-Aware Knowledge Preservation for Zero-Shot
Sketch-Based Image Retrieval", ICCV 2019 (as in its public code); which sense of WordNet a class
name has is our reading.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsbir_fast.data import bundled
from zsbir_fast.data.names import plain_name

LEAST = 0.2
TARGET = Path("zsbir_fast/data/bundled/semantics/wordnet_imagenet.json")
LISTS = ("sketchy_all125", "tuberlin_all250", "quickdraw_all110")

# The sense of a class name where it is not the first one of WordNet, or where WordNet lacks the
# name; None: nothing in WordNet is meant.
SENSES: dict[str, str | None] = {
    "banana": "banana.n.02",
    "blimp": "blimp.n.02",
    "book": "book.n.02",
    "bowl": "bowl.n.03",
    "cabin": "cabin.n.02",
    "cake": "cake.n.03",
    "calculator": "calculator.n.02",
    "cannon": "cannon.n.02",
    "car (sedan)": "sedan.n.01",
    "castle": "castle.n.02",
    "ceiling fan": "fan.n.01",
    "chicken": "chicken.n.02",
    "church": "church.n.02",
    "cloud": "cloud.n.02",
    "computer-mouse": "mouse.n.04",
    "crane (machine)": "crane.n.04",
    "crown": "crown.n.04",
    "dolphin": "dolphin.n.02",
    "ear": "auricle.n.02",
    "flower with stem": "flower.n.01",
    "flying bird": "bird.n.01",
    "hammer": "hammer.n.02",
    "hedgehog": "hedgehog.n.02",
    "helmet": "helmet.n.02",
    "hotdog": "hotdog.n.02",
    "human-skeleton": "skeletal_system.n.01",
    "ice-cream-cone": "ice-cream_cone.n.01",
    "jack-o-lantern": "jack-o'-lantern.n.02",
    "jellyfish": "jellyfish.n.02",
    "lighter": "lighter.n.02",
    "lobster": "lobster.n.02",
    "motorbike": "motorcycle.n.01",
    "mug": "mug.n.04",
    "octopus": "octopus.n.02",
    "person sitting": "person.n.01",
    "person walking": "person.n.01",
    "pineapple": "pineapple.n.02",
    "potted plant": "pot_plant.n.01",
    "power outlet": "wall_socket.n.01",
    "present": "present.n.02",
    "pumpkin": "pumpkin.n.02",
    "raccoon": "raccoon.n.02",
    "racket": "racket.n.04",
    "radio": "radio_receiver.n.01",
    "ray": "ray.n.07",
    "satellite dish": "dish.n.05",
    "saw": "saw.n.02",
    "scorpion": "scorpion.n.03",
    "seal": "seal.n.09",
    "sponge bob": None,
    "standing bird": "bird.n.01",
    "stop sign": "street_sign.n.01",
    "table": "table.n.02",
    "tablelamp": "table_lamp.n.01",
    "teacup": "teacup.n.02",
    "tiger": "tiger.n.02",
    "toilet": "toilet.n.02",
    "turtle": "turtle.n.02",
    "tv": "television_receiver.n.01",
    "van": "van.n.05",
    "volcano": "volcano.n.02",
    "walkie talkie": "walkie-talkie.n.01",
}


def class_names() -> list[str]:
    """List the classes of the published splits and of qd_caltech, each once."""
    folder = bundled.path("splits")
    names = [name for list_ in LISTS for name in _lines(folder / f"{list_}.txt")]
    names += [
        line.partition(",")[0] for line in _lines(bundled.path("qd_caltech") / "classes.csv")
    ][1:]
    return list({plain_name(name): name for name in reversed(names)}.values())[::-1]


def similar_classes(synset: Any, imagenet: dict[str, Any]) -> dict[str, float]:
    """Compare a synset of WordNet with those of ImageNet.

    Args:
        synset: of nltk.
        imagenet: WordNet id -> synset, of all ImageNet classes.

    Returns:
        WordNet id -> similarity, above 0.2 only.
    """
    found = {}
    for identity, other in imagenet.items():
        above = {synset} & {*other.closure(lambda s: s.hypernyms() + s.instance_hypernyms()), other}
        similarity = 1.0 if above else synset.path_similarity(other)
        if similarity > LEAST:
            found[identity] = round(similarity, 4)
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--wordnet", required=True, help="folder of nltk's data")
    folder = parser.parse_args().wordnet
    import nltk
    from timm.data.imagenet_info import ImageNetInfo

    nltk.data.path.append(folder)
    from nltk.corpus import wordnet

    identities: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    imagenet = {i: wordnet.synset_from_pos_and_offset(i[0], int(i[1:])) for i in identities}
    senses = {plain_name(name): sense for name, sense in SENSES.items()}
    table = {}
    for name in class_names():
        synset = _synset(wordnet, name, senses)
        similar = {} if synset is None else similar_classes(synset, imagenet)
        table[name] = {"synset": None if synset is None else synset.name(), "similar": similar}
    content = {"wordnet": "3.0", "imagenet": identities, "classes": table}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(_json(content), encoding="utf-8")


def _synset(wordnet: Any, name: str, senses: dict[str, str | None]) -> Any:
    if plain_name(name) in senses:
        sense = senses[plain_name(name)]
        return None if sense is None else wordnet.synset(sense)
    found = [s for spelling in _spellings(name) for s in wordnet.synsets(spelling, "n")]
    if not found:
        raise SystemExit(f"semantic_table: {name!r} must have a sense in SENSES")
    return found[0]


def _spellings(name: str) -> Iterator[str]:
    bare = re.sub(r"\(.*?\)", "", name).strip(" _").replace(" ", "_").lower()
    yield from (bare, bare.replace("-", "_"), bare.replace("_", ""), bare.replace("-", ""))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _json(content: dict[str, Any]) -> str:
    """One line for each class, so that changes can be read."""
    classes = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content["classes"].items())
    head = {key: value for key, value in content.items() if key != "classes"}
    return f'{json.dumps(head)[:-1]},\n"classes": {{\n{classes}\n}}}}\n'


if __name__ == "__main__":
    main()
