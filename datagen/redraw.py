"""Any stored picture again: from the spec in its row and the fonts and photographs listed beside the shards."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet as pq

from datagen.codec import decode_png
from datagen.decode import ImageProblem
from datagen.photos import PhotoStore, index_from_json
from datagen.plan import PHOTOS, read_fonts
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import sha256_of
from render_engine.render import Assets, render
from render_engine.spec import RenderError, spec_from_json


class RunAssets:
    """The fonts and photographs of a run, each checked by its digest when it is first used."""

    def __init__(self, folder: Folder) -> None:
        """Raises BadInput when the run folder has no lists of them."""
        faces = read_fonts(folder).faces
        photos = index_from_json(folder.read(PHOTOS).decode(), folder.describe(PHOTOS))
        self._assets = Assets(faces, PhotoStore(photos.photos))
        self._checked: set[str] = set()

    def draw(self, spec_json: str, what: str) -> npt.NDArray[np.uint8]:
        """The picture of a spec, uint8 sRGB (H, W, 3). Raises BadInput, naming `what`, when it cannot be drawn."""
        try:
            spec = spec_from_json(spec_json)
            for face_id in {face_id for block in spec.blocks for face_id in block.face_ids}:
                self._check_font(face_id, what)
            return render(spec, self._assets).image_HW3
        except (msgspec.MsgspecError, RenderError) as error:
            raise BadInput(f"{what}: its spec cannot be drawn ({error})") from None

    def _check_font(self, face_id: str, what: str) -> None:
        if face_id in self._checked:
            return
        face = self._assets.fonts.get(face_id)
        if face is None:
            raise BadInput(f"{what}: the face {face_id} is not in the run's list of fonts")
        path = Path(face.path)
        if not path.is_file() or sha256_of(path) != face.sha256:
            raise BadInput(f"{what}: the font {path} is gone or has changed since the run")
        self._checked.add(face_id)


def redraw(shard_path: Path | str, row: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(as stored, drawn again) of row `row` of a shard inside its run folder: both uint8 sRGB (H, W, 3), equal when
    nothing has changed.

    Raises BadInput when there is no such file or row, the row holds no synthetic picture, or its fonts or photograph
    are gone.
    """
    path = Path(shard_path)
    stored = read_row(path, row)
    what = f"{path}, row {row}"
    if stored["spec"] is None:
        raise BadInput(f"{what}: is no synthetic picture, there is nothing to draw")
    if not stored["image"] or not stored["image"]["bytes"]:
        raise BadInput(f"{what}: holds no picture, it could not be drawn as specified ({stored['reason']})")
    try:
        stored_HW3 = decode_png(stored["image"]["bytes"])
    except ImageProblem as problem:
        raise BadInput(f"{what}: its picture does not decode ({problem})") from None
    return stored_HW3, RunAssets(Folder(str(path.absolute().parent.parent))).draw(stored["spec"], what)


def read_row(path: Path, row: int) -> dict[str, Any]:
    """One row of a Parquet file; only its row group is read. Raises BadInput when there is no such file or row."""
    try:
        with pq.ParquetFile(path) as file:
            if not 0 <= row < file.metadata.num_rows:
                raise BadInput(f"{path}: has rows 0 to {file.metadata.num_rows - 1}, there is no row {row}")
            number, left = 0, row
            while left >= file.metadata.row_group(number).num_rows:
                left -= file.metadata.row_group(number).num_rows
                number += 1
            found: dict[str, Any] = file.read_row_group(number).slice(left, 1).to_pylist()[0]
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot be read as a Parquet file ({str(error).splitlines()[0]})") from None
    missing = {"spec", "image", "reason"} - found.keys()
    if missing:
        raise BadInput(f"{path}: has no column {missing.pop()!r}, so it is no shard of ours")
    return found
