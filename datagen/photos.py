"""Photographs to write on: an index of what is usable, and crops cut from it quickly.

Nothing here looks for text: a photograph that holds writing of its own (a shop sign, a screenshot) would teach a wrong
answer, so name places that hold none.
"""

import collections
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from datagen.decode import SUFFIXES, ImageProblem, decode_image
from datagen.resample import resample
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files


class PhotoPlace(Config):
    """One place with photographs under one licence."""

    place: str
    """A file, a folder (searched to the bottom), a glob, or `package:NAME/...` inside an installed package."""
    licence: str
    """SPDX identifier or a sentence; it is written beside every picture made from these files."""


class PhotosConfig(Config):
    """Where the backgrounds come from."""

    places: tuple[PhotoPlace, ...] = ()
    """A file found in two places counts once, under the licence of the first. Pages without photographs need none."""
    min_side_px: int = Field(default=256, ge=16)
    """Photographs whose shorter side is below this are left out as "too_small"."""
    max_megapixels: float = Field(default=64.0, gt=0)
    """Files whose header promises more are left out as "too_many_pixels" before anything is decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFile:
    """A photograph that decodes from its first byte to its last."""

    photo_id: str
    """First 16 hex digits of the SHA-256 of the file."""
    path: str
    """Absolute."""
    width_px: int
    """Upright, as EXIF says."""
    height_px: int
    licence: str
    grey: bool
    """All three channels are equal everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedPhoto:
    """A file that cannot be used, and why: "too_small", "duplicate", or a `datagen.decode.Problem`."""

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoIndex:
    """What a run may put under its text, sorted by `photo_id`: the order does not depend on where the files lie."""

    photos: tuple[PhotoFile, ...]
    dropped: tuple[DroppedPhoto, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the usable contents and their licences; the same wherever the files lie."""
        lines = "\n".join(f"{photo.photo_id} {photo.licence}" for photo in self.photos)
        return hashlib.sha256(lines.encode()).hexdigest()

    def dropped_by_reason(self) -> dict[str, int]:
        """Reason -> number of files, most frequent first."""
        return dict(collections.Counter(photo.reason for photo in self.dropped).most_common())


def index_photos(config: PhotosConfig) -> PhotoIndex:
    """Decode every file once and list the usable ones; the others are listed with a reason.

    Raises BadInput when a place does not exist or nothing usable is left.
    """
    photos: dict[str, PhotoFile] = {}
    dropped: list[DroppedPhoto] = []
    seen: set[Path] = set()
    for source in config.places:
        for path in find_files([source.place], SUFFIXES):
            path = path.resolve()
            if path in seen:  # the same file reached twice, through a folder and by its name
                continue
            seen.add(path)
            found = _examine(path, source.licence, config)
            if isinstance(found, DroppedPhoto):
                dropped.append(found)
            elif found.photo_id in photos:
                original = photos[found.photo_id].path
                dropped.append(DroppedPhoto(path=str(path), reason="duplicate", detail=f"equal to {original}"))
            else:
                photos[found.photo_id] = found
    index = PhotoIndex(photos=tuple(sorted(photos.values(), key=lambda photo: photo.photo_id)), dropped=tuple(dropped))
    if not config.places:
        raise BadInput("photos.places is empty, but pages over photographs are asked for; name a folder")
    if not photos:
        places = ", ".join(source.place for source in config.places)
        reasons = ", ".join(f"{count} {reason}" for reason, count in index.dropped_by_reason().items())
        raise BadInput(f"{places}: no usable photograph ({reasons or 'no image files at all'}); name other places")
    return index


def _examine(path: Path, licence: str, config: PhotosConfig) -> PhotoFile | DroppedPhoto:
    try:
        data = path.read_bytes()
        image_HW3 = decode_image(data, int(config.max_megapixels * 1e6))
    except ImageProblem as problem:
        return DroppedPhoto(path=str(path), reason=problem.reason, detail=str(problem))
    except OSError as error:
        return DroppedPhoto(path=str(path), reason="unreadable_file", detail=str(error))
    height, width = image_HW3.shape[:2]
    if min(height, width) < config.min_side_px:
        detail = f"{width} x {height} px, the shorter side must be at least {config.min_side_px}"
        return DroppedPhoto(path=str(path), reason="too_small", detail=detail)
    red_HW, green_HW, blue_HW = image_HW3[:, :, 0], image_HW3[:, :, 1], image_HW3[:, :, 2]
    return PhotoFile(
        photo_id=_photo_id(data),
        path=str(path),
        width_px=width,
        height_px=height,
        licence=licence,
        grey=bool((red_HW == green_HW).all() and (green_HW == blue_HW).all()),
    )


def _photo_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def index_to_json(index: PhotoIndex) -> str:
    """The index as JSON, one photograph a line."""
    parts = ['{"photos": [\n', ",\n".join(json.dumps(asdict(photo), ensure_ascii=False) for photo in index.photos)]
    parts += ['\n], "dropped": [\n', ",\n".join(json.dumps(asdict(d), ensure_ascii=False) for d in index.dropped)]
    return "".join([*parts, "\n]}\n"])


def index_from_json(text: str, name: str = "photos.json") -> PhotoIndex:
    """Read back what `index_to_json` wrote. Raises BadInput when it is no such list."""
    try:
        data: dict[str, Any] = json.loads(text)
        return PhotoIndex(
            photos=tuple(PhotoFile(**photo) for photo in data["photos"]),
            dropped=tuple(DroppedPhoto(**photo) for photo in data["dropped"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{name}: is no list of photographs ({type(error).__name__}: {error})") from None


class PhotoStore:
    """Crops of the photographs of an index. Each photograph is decoded once while it stays in the cache.

    A crop is read from the smallest of the photograph's halvings (means of 2 x 2 pixels of sRGB values) that is not
    smaller than the result, then resampled bilinearly with integer weights: equal on every processor. (OpenCV's
    INTER_LINEAR takes .6 to .8 of the time, but its rounding is that of the processor's instructions.)
    A crop of 256 x 256 px costs 0.15 to 0.38 ms, one of the photograph's own size 0.01 ms; decoding 1 Mpx about 10.
    """

    def __init__(self, photos: Iterable[PhotoFile], cache_bytes: int = 512_000_000) -> None:
        """cache_bytes: pixels kept decoded in this process; the least recently used go first, one always stays."""
        self._photos = {photo.photo_id: photo for photo in photos}
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._pyramids: collections.OrderedDict[str, Sequence[npt.NDArray[np.uint8]]] = collections.OrderedDict()

    def crop(
        self, photo_id: str, box_px: tuple[int, int, int, int], width_px: int, height_px: int
    ) -> npt.NDArray[np.uint8]:
        """`box_px` (x0, y0, x1, y1) of a photograph at `width_px` x `height_px` as uint8 sRGB (height, width, 3).

        Raises KeyError for an unknown id, BadInput when the photograph is gone or has changed, ValueError when the box
        leaves it.
        """
        pyramid = self._pyramid(photo_id)
        height, width = pyramid[0].shape[:2]
        x0, y0, x1, y1 = box_px
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"box {box_px} leaves the photograph {photo_id} of {width} x {height} px")
        level = 0
        while level + 1 < len(pyramid) and (x1 - x0) >> level + 1 >= width_px and (y1 - y0) >> level + 1 >= height_px:
            level += 1
        # Rounded to whole pixels of the halving: at most half a pixel of the result, on a background.
        half = (1 << level) >> 1
        left, top, right, bottom = ((edge + half) >> level for edge in (x0, y0, x1, y1))
        # The halving of an odd side is half a pixel shorter.
        height, width = pyramid[level].shape[:2]
        right, bottom = min(right, width), min(bottom, height)
        left, top = min(left, right - 1), min(top, bottom - 1)
        if (right - left, bottom - top) == (width_px, height_px):
            return pyramid[level][top:bottom, left:right].copy()
        return resample(pyramid[level], (left, top, right, bottom), width_px, height_px)

    def _pyramid(self, photo_id: str) -> Sequence[npt.NDArray[np.uint8]]:
        if photo_id in self._pyramids:
            self._pyramids.move_to_end(photo_id)
            return self._pyramids[photo_id]
        pyramid = _halvings(self._decode(self._photos[photo_id]))
        self._pyramids[photo_id] = pyramid
        self._held_bytes += sum(level.nbytes for level in pyramid)
        while self._held_bytes > self._cache_bytes and len(self._pyramids) > 1:
            _, oldest = self._pyramids.popitem(last=False)
            self._held_bytes -= sum(level.nbytes for level in oldest)
        return pyramid

    def _decode(self, photo: PhotoFile) -> npt.NDArray[np.uint8]:
        try:
            data = Path(photo.path).read_bytes()
        except OSError as error:
            raise BadInput(f"{photo.path}: the photograph cannot be read any more ({error.strerror})") from None
        if _photo_id(data) != photo.photo_id:
            raise BadInput(f"{photo.path}: the photograph has changed since it was indexed as {photo.photo_id}")
        try:
            return decode_image(data, photo.width_px * photo.height_px)
        except ImageProblem as problem:
            raise BadInput(f"{photo.path}: no longer decodes ({problem}); is another Pillow installed?") from None


def _halvings(image_HW3: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    levels = [image_HW3]
    while min(levels[-1].shape[:2]) >= 64:
        height, width = (side // 2 for side in levels[-1].shape[:2])
        # INTER_AREA of exactly one half is an integer mean of four, rounded half up.
        levels.append(cv2.resize(levels[-1][: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))
    return levels
