"""The items of training batches: pairs of a sketch and a photo, or single images."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from torch.utils.data import Dataset

from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.names import listing, same_names


class PairItem(TypedDict):
    """One pair; default collation makes batches of it.

    Attributes:
        sketches: float32 [3, H, W]; in a batch [B, 3, H, W].
        photos: float32 [3, H, W]; in a batch [B, 3, H, W].
        labels: the class of both; in a batch int64 [B].
    """

    sketches: Tensor
    photos: Tensor
    labels: int


class SketchPhotoPairs(Dataset[PairItem]):
    """A sketch and a photo of the same class, by (sketch index, photo index).

    Args:
        sketches: the sketches.
        photos: the photos, with the same classes.

    Raises:
        ValueError: modalities or classes are not as they must be.
    """

    def __init__(self, sketches: ImageSet, photos: ImageSet) -> None:
        _require_partners("SketchPhotoPairs", sketches, photos)
        self.sketches = sketches
        self.photos = photos

    def __repr__(self) -> str:
        return f"SketchPhotoPairs({self.sketches!r}, {self.photos!r})"

    def __getitem__(self, pair: tuple[int, int]) -> PairItem:
        """Return sketch ``pair[0]`` and photo ``pair[1]``.

        Raises:
            ValueError: they are of different classes, or a file is damaged.
        """
        label, photo_label = (
            int(images.labels[i])
            for images, i in zip((self.sketches, self.photos), pair, strict=True)
        )
        if label != photo_label:
            raise ValueError(
                "SketchPhotoPairs: sketch and photo of a pair must be of one class, got "
                f"{self.sketches.classes[label]!r} and {self.photos.classes[photo_label]!r}"
            )
        return {
            "sketches": self.sketches[pair[0]][0],
            "photos": self.photos[pair[1]][0],
            "labels": label,
        }


class MixedItem(TypedDict):
    """One image of either modality; default collation makes batches of it.

    Attributes:
        images: float32 [3, H, W]; in a batch [B, 3, H, W].
        labels: its class; in a batch int64 [B].
        is_photo: whether it is a photo; in a batch bool [B].
    """

    images: Tensor
    labels: int
    is_photo: bool


class MixedImages(Dataset[MixedItem]):
    """Sketches, then photos, one by one.

    Args:
        sketches: the sketches.
        photos: the photos, with the same classes.

    Raises:
        ValueError: modalities or classes are not as they must be.
    """

    def __init__(self, sketches: ImageSet, photos: ImageSet) -> None:
        _require_partners("MixedImages", sketches, photos)
        self.sketches = sketches
        self.photos = photos

    def __repr__(self) -> str:
        return f"MixedImages({self.sketches!r}, {self.photos!r})"

    def __len__(self) -> int:
        """Return the number of sketches and photos."""
        return len(self.sketches) + len(self.photos)

    def __getitem__(self, index: int) -> MixedItem:
        """Return sketch ``index``, or photo ``index - len(sketches)``.

        Raises:
            ValueError: a file is damaged.
        """
        is_photo = index >= len(self.sketches)
        held = self.photos if is_photo else self.sketches
        image, label = held[index - is_photo * len(self.sketches)]
        return {"images": image, "labels": label, "is_photo": is_photo}


def _require_partners(function: str, sketches: ImageSet, photos: ImageSet) -> None:
    if (sketches.modality, photos.modality) != ("sketch", "photo"):
        raise ValueError(
            f"{function}: sketches and photos must be of these modalities, got "
            f"{sketches.modality} and {photos.modality}"
        )
    if not same_names(sketches.classes, photos.classes):
        raise ValueError(
            f"{function}: sketches and photos must have the same classes, got "
            f"{listing(sketches.classes, limit=3)} and {listing(photos.classes, limit=3)}"
        )
