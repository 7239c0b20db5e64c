"""Binary codes: iterative quantisation, and ranking by the Hamming distance.

Source: Gong and Lazebnik, "Iterative quantization: a Procrustean approach to learning binary
codes", CVPR 2011. What the public code of ClusterRetri and SEM-PCYC does with it is
:meth:`ITQ.published`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsbir_fast._arguments import as_integer, check_choice, check_flag
from zsbir_fast._files import reading, write_atomically
from zsbir_fast._words import reason
from zsbir_fast.metrics.checks import check_finite, check_matrix, row_blocks
from zsbir_fast.metrics.scores import GallerySide
from zsbir_fast.ranking.hamming import hamming_distances
from zsbir_fast.ranking.ranker import Ranker, Scorer
from zsbir_fast.ranking.reranker import unit_rows

LearnOn = Literal["both", "sketches", "photos"]
Modality = Literal["sketch", "photo"]

_TENSORS = ("sketch_mean", "photo_mean", "basis", "rotation")
_ROUNDS = 50


@dataclass(frozen=True)
class ITQ:
    """Codes by iterative quantisation: centre, project, rotate, and take the signs.

    Attributes:
        sketch_mean: float32 [D], subtracted from L2-normalised sketches.
        photo_mean: float32 [D], subtracted from L2-normalised photos; the same unless
            ``own_means``.
        basis: float32 [D, bits], the principal directions of the features it was learnt on.
        rotation: float32 [bits, bits], orthogonal.
        learn_on: the modality whose features it was learnt on.
        own_means: whether each modality was centred by its own mean.
        transductive: whether it was learnt on the features that are ranked.
    """

    sketch_mean: Tensor
    photo_mean: Tensor
    basis: Tensor
    rotation: Tensor
    learn_on: LearnOn = "both"
    own_means: bool = False
    transductive: bool = False

    @property
    def bits(self) -> int:
        """Length of a code."""
        return self.basis.shape[1]

    @property
    def name(self) -> str:
        """What it is and what it was learnt on."""
        rows = "features" if self.learn_on == "both" else self.learn_on
        source = f"{rows} of the test, transductive" if self.transductive else f"training {rows}"
        means = "each modality's own mean" if self.own_means else "one mean"
        return f"{self.bits}-bit ITQ codes (learnt on {source}; {means})"

    @staticmethod
    def fit(
        sketches: Tensor,
        photos: Tensor,
        *,
        bits: int | None = 64,
        learn_on: LearnOn = "both",
        own_means: bool = False,
        transductive: bool = False,
        rounds: int = _ROUNDS,
        seed: int = 0,
    ) -> ITQ:
        """Learn codes from features, as a rule from those of the training images.

        Args:
            sketches: float [n, D]; rows are L2-normalised first.
            photos: float [m, D], likewise.
            bits: length of a code; None: D.
            learn_on: the features that directions and rotation are learnt on.
            own_means: centre each modality by its own mean, which alone removes an offset between
                the modalities; otherwise by the mean of all.
            transductive: say that these are the features to be ranked; names and reports tell it.
            rounds: rounds of the rotation.
            seed: of the first rotation.

        Returns:
            The codes. They are the same for a seed on one machine; with another number of threads
            LAPACK may round differently.

        Raises:
            TypeError: an option is of another type.
            ValueError: features are not finite, of two widths or fewer than two, ``bits`` exceeds
                D, or an option is out of range.
        """
        function = "ITQ.fit"
        check_choice(function, "learn_on", learn_on, LearnOn)
        check_flag(function, "own_means", own_means)
        check_flag(function, "transductive", transductive)
        rounds = as_integer(function, "rounds", rounds, least=1)
        seed = as_integer(function, "seed", seed, least=0)
        sides = [
            _checked(function, name, rows)
            for name, rows in (("sketches", sketches), ("photos", photos))
        ]
        width = sides[0].shape[1]
        if sides[1].shape[1] != width:
            raise ValueError(
                f"{function}: photos must be [m, {width}] like sketches, got {list(photos.shape)}"
            )
        bits = as_integer(function, "bits", width if bits is None else bits, least=1, most=width)
        means = [_mean(side) for side in sides]
        if not own_means:
            sizes = [len(side) for side in sides]
            means = [np.average(means, axis=0, weights=sizes)] * 2
        learnt = {"both": (0, 1), "sketches": (0,), "photos": (1,)}[learn_on]
        if sum(len(sides[i]) for i in learnt) < 2:
            raise ValueError(f"{function}: {learn_on} must have at least 2 rows to learn on, got 1")
        basis = _principal([(sides[i], means[i]) for i in learnt], bits)
        projected = np.concatenate(
            [(rows - means[i]) @ basis for i in learnt for rows in _normalised(sides[i])]
        )
        rotation = _rotation(projected, rounds, np.random.default_rng(seed))
        arrays = (*means, basis, rotation)
        tensors = {
            name: torch.from_numpy(array.astype(np.float32))
            for name, array in zip(_TENSORS, arrays, strict=True)
        }
        return ITQ(**tensors, learn_on=learn_on, own_means=own_means, transductive=transductive)

    @staticmethod
    def published(queries: Tensor, gallery: Tensor, *, seed: int = 0) -> ITQ:
        """Learn codes as the public code of ClusterRetri does, from the test itself.

        Each modality is centred by its own mean over the test; directions and 50 rounds of the
        rotation are learnt on the sketches that are the queries, and all D directions are kept. It
        is transductive: no sketch may be judged without the others.

        Args:
            queries: float [Q, D], the sketches of the test.
            gallery: float [G, D], the photos of the test.
            seed: of the first rotation, which the public code leaves open.

        Returns:
            The codes.

        Raises:
            ValueError: as :meth:`fit`.
        """
        return ITQ.fit(
            queries,
            gallery,
            bits=None,
            learn_on="sketches",
            own_means=True,
            transductive=True,
            seed=seed,
        )

    def encode(self, features: Tensor, modality: Modality) -> Tensor:
        """Turn features into codes.

        Args:
            features: float [n, D].
            modality: ``"sketch"`` or ``"photo"``, which says what mean is subtracted.

        Returns:
            uint8 [n, ceil(bits / 8)], 8 bits a byte, the first bit the highest; what is missing in
            the last byte is 0. A code depends on its row alone.

        Raises:
            ValueError: another modality, features of another width, or not finite.
        """
        function = "ITQ.encode"
        check_choice(function, "modality", modality, Modality)
        rows = _checked(function, "features", features)
        if rows.shape[1] != len(self.basis):
            raise ValueError(
                f"{function}: features must be [n, {len(self.basis)}], got {list(rows.shape)}"
            )
        mean = (self.sketch_mean if modality == "sketch" else self.photo_mean).to(rows.device)
        directions = (self.basis @ self.rotation).T.contiguous().to(rows.device)
        side = GallerySide.of(directions, "dot", torch.float32)
        signs = []
        for _, block in row_blocks(rows):
            centred = unit_rows(block) - mean
            signs.append(side.scores(centred, centred.new_empty(len(block), self.bits)) > 0)
        packed = np.packbits(torch.cat(signs).cpu().numpy(), axis=1)
        return torch.from_numpy(packed).to(rows.device)

    def save(self, path: str | Path) -> None:
        """Write the codes as one safetensors file, in one step.

        Args:
            path: the file.
        """
        from safetensors.torch import save

        # Copies, as safetensors refuses tensors that share memory, and the means may.
        tensors = {name: getattr(self, name).clone() for name in _TENSORS}
        flags = {"own_means": self.own_means, "transductive": self.transductive}
        metadata = {"learn_on": self.learn_on} | {key: str(int(x)) for key, x in flags.items()}
        content = save(tensors, metadata=metadata)
        write_atomically(path, lambda stream: stream.write(content))

    @staticmethod
    def load(path: str | Path) -> ITQ:
        """Read codes that :meth:`save` wrote.

        Args:
            path: the file.

        Returns:
            The codes.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it holds no such codes, or is damaged.
        """
        from safetensors import safe_open

        with reading("ITQ.load", path, "file of codes"):
            Path(path).stat()
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
                metadata = file.metadata() or {}
            width, bits = tensors["basis"].shape
            expected = [[width], [width], [width, bits], [bits, bits]]
            if [list(x.shape) for x in tensors.values()] != expected or any(
                x.dtype != torch.float32 or not bool(torch.isfinite(x).all())
                for x in tensors.values()
            ):
                raise ValueError("its tensors do not fit each other")
            check_choice("ITQ.load", "learn_on", metadata["learn_on"], LearnOn)
            learn_on: Any = metadata["learn_on"]
            own_means, transductive = (
                bool(int(metadata[key])) for key in ("own_means", "transductive")
            )
        except Exception as error:  # damaged files raise many kinds
            raise ValueError(
                f"ITQ.load: path must be a file of codes written by zsbir, got {path} "
                f"({reason(error)})"
            ) from error
        return ITQ(**tensors, learn_on=learn_on, own_means=own_means, transductive=transductive)


class CodeRanker(Ranker):
    """Ranks photos by the Hamming distance of binary codes. Photos at equal distances tie.

    With n bits there are n + 1 distances at most, so that ties decide part of every number: say
    under which tie mode it was measured. ``standard`` takes the mean over all orders.

    Args:
        codes: learnt codes; queries are encoded as sketches, the gallery as photos.

    Raises:
        TypeError: ``codes`` are none.
    """

    larger_is_closer = False

    def __init__(self, codes: ITQ) -> None:
        if not isinstance(codes, ITQ):
            raise TypeError(f"CodeRanker: codes must be an ITQ, got {type(codes).__name__}")
        self.codes = codes
        self.name = f"Hamming distance of {codes.name}, photos at equal distances tie"

    def __repr__(self) -> str:
        """Show what the codes are."""
        return f"CodeRanker({self.codes.name})"

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: its codes.

        Args:
            gallery: float [G, D].

        Returns:
            A function from queries [q, D] to Hamming distances, float32 [q, G].

        Raises:
            ValueError: as :meth:`ITQ.encode`.

        Cost: ceil(bits / 64) exclusive ors and counts of bits for each pair.
        """
        photos = self.codes.encode(gallery, "photo")

        def score(queries: Tensor) -> Tensor:
            if not len(queries):
                return queries.new_empty(0, len(photos), dtype=torch.float32)
            return hamming_distances(self.codes.encode(queries, "sketch"), photos)

        return score


def _checked(function: str, name: str, rows: Tensor) -> Tensor:
    rows = check_matrix(function, name, rows, shape="[n, D]")
    check_finite(function, name, rows)
    return rows


def _normalised(rows: Tensor) -> Iterator[NDArray[Any]]:
    """Blocks of L2-normalised rows in float64, so that no copy of all is ever made."""
    for _, block in row_blocks(rows):
        yield unit_rows(block).double().cpu().numpy()


def _mean(rows: Tensor) -> NDArray[Any]:
    total = sum((block.sum(0) for block in _normalised(rows)), np.zeros(rows.shape[1]))
    return np.asarray(total / len(rows))


def _principal(sides: list[tuple[Tensor, NDArray[Any]]], bits: int) -> NDArray[Any]:
    """The directions of largest variance, float64 [D, bits], largest first."""
    centred = (block - mean for rows, mean in sides for block in _normalised(rows))
    scatter = sum((rows.T @ rows for rows in centred), np.zeros((sides[0][0].shape[1],) * 2))
    return np.asarray(np.linalg.eigh(scatter).eigenvectors[:, ::-1][:, :bits])


def _rotation(projected: NDArray[Any], rounds: int, generator: np.random.Generator) -> NDArray[Any]:
    """The rotation that brings the rows near the corners of a cube, equations (2) and (3)."""
    bits = projected.shape[1]
    rotation, _, _ = np.linalg.svd(generator.standard_normal((bits, bits)))
    for _ in range(rounds):
        corners = np.where(projected @ rotation >= 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(corners.T @ projected)
        rotation = right.T @ left.T
    return np.asarray(rotation)
