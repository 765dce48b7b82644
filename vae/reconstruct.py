"""Picture files through a saved model, as anybody would look at it first."""

from pathlib import Path

from datagen.codec import encode_png
from datagen.decode import SUFFIXES, ImageProblem, decode_image
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.evaluate import load_model, network, reconstruct


def reconstruct_files(model_folder: Path, place: str, out: Path) -> tuple[int, list[tuple[str, str]]]:
    """Write `out`/NAME.png for every picture at `place`; returns how many, and the (name, problem) of those left out.

    Rows and columns beyond the last multiple of the compression are cut off: nothing is resized. Of two pictures whose
    names differ in the suffix only, the second is left out. Raises BadInput when there is no model or no picture, or
    `out` cannot be written.
    """
    model = load_model(model_folder)
    files = find_files([place], SUFFIXES)
    if not files:
        raise BadInput(f"{place}: no picture found ({', '.join(sorted(SUFFIXES))})")
    problems: list[tuple[str, str]] = []
    written: set[str] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in files:
            if path.stem in written:
                problems.append((str(path), f"{path.stem}.png is taken by another picture of that name"))
                continue
            try:
                image_HW3 = decode_image(path)
            except ImageProblem as problem:
                problems.append((str(path), str(problem)))
                continue
            height, width = (side - side % model.compression for side in image_HW3.shape[:2])
            if not height or not width:
                problems.append((str(path), f"smaller than the compression, {model.compression} px"))
                continue
            output_1HW3 = reconstruct(network(model), image_HW3[None, :height, :width])
            (out / f"{path.stem}.png").write_bytes(encode_png(output_1HW3[0]))
            written.add(path.stem)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None
    return len(written), problems
