"""`glyphmill eval`: two folders -> PSNR, SSIM, LPIPS, FID and NED, as OmniDoc-TokenBench's eval_metrics.py has them.

Same figures and same files, and beside them what is missing there: which pairs were left out and why, intervals,
figures by language and category, the mended reading order, a second reader. See docs/evaluation.md.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from datagen.lines import reading_order
from datagen.progress import ProgressReport, silent
from datagen.reading import PageReading, ReaderChoice, read_files
from fonts_manifest.apart import Died
from fonts_manifest.errors import BadInput
from vae.fid import WEIGHTS_FILE, frechet_distance
from vae.journal import Journal, file_key
from vae.labels import groups_of
from vae.pairs import Pair, pair_folders
from vae.perceptual import VGG_FILE
from vae.pixels import PixelScore, score_pairs, unpack_features
from vae.scorecard import PairScore, Report, ScoreChoice, summarise, write_report

GPU_PROCESSES = 2
"""At most so many share a GPU: one opens files while the other computes, and each keeps networks of its own there."""


def score_folders(
    targets: Path,
    outputs: Path,
    out: Path,
    choice: ScoreChoice,
    progress: ProgressReport = silent,
) -> Report:
    """Compare the reconstructions in `outputs` with the originals in `targets`; write results and details into `out`.

    Killed and started again it goes on: journals in `out` hold what was measured, by the content of the files. Raises
    BadInput for folders without pictures in common, and for readers or weights that cannot be opened.
    """
    folders = pair_folders(targets, outputs)
    groups = groups_of([pair.name for pair in folders.pairs], targets, choice.labels)
    scores = [PairScore(name=pair.name, groups=groups[pair.name]) for pair in folders.pairs]
    keys = {path: file_key(path) for pair in folders.pairs for path in (pair.target, pair.output)}
    fid: float | None = None
    details: dict[str, Any] | None = None
    readers: dict[str, str] = {}
    with ExitStack() as stack:
        if choice.mode in ("pixel", "all"):
            journal = stack.enter_context(Journal(out / "pixels.jsonl"))
            fid = _measure_pixels(folders.pairs, scores, keys, journal, choice, progress)
        if choice.mode in ("ned", "all"):
            journal = stack.enter_context(Journal(choice.readings or out / "readings.jsonl"))
            details = _measure_ned(folders.pairs, scores, keys, journal, choice, readers, progress)
    report = summarise(folders, scores, fid, details, readers, choice)
    write_report(out, report, choice)
    return report


def _measure_pixels(
    pairs: Sequence[Pair],
    scores: list[PairScore],
    keys: Mapping[Path, str],
    journal: Journal,
    choice: ScoreChoice,
    progress: ProgressReport,
) -> float | None:
    """Fills in the pixel metrics; returns FID, None without weights or with fewer than two pairs."""
    setup = json.dumps([_identity(choice.pixels.vgg_weights), _identity(choice.pixels.inception_weights)])
    own = [f"{keys[pair.target]} {keys[pair.output]} {choice.pixels.resize} {setup}" for pair in pairs]
    waiting = [index for index, key in enumerate(own) if key not in journal]
    done = len(pairs) - len(waiting)
    progress("pixels", done, len(pairs), {})
    for place, scored in score_pairs(
        [pairs[index] for index in waiting],
        choice.pixels,
        processes=_sharing(choice.processes, choice.pixels.device),
        batch=choice.batch,
    ):
        index, done = waiting[place], done + 1
        if isinstance(scored, Died):
            scores[index].left_out["pixels"] = scored.reason
        else:
            journal.add(own[index], dataclasses.asdict(scored))
        progress("pixels", done, len(pairs), {})
    features = []
    for score, key in zip(scores, own, strict=True):
        if key not in journal:
            continue
        known = PixelScore.from_dict(journal[key])
        score.psnr_db, score.ssim, score.lpips, score.equal = known.psnr_db, known.ssim, known.lpips, known.equal
        score.notes += known.notes
        if known.features:
            features.append([unpack_features(side) for side in known.features])
    if len(features) < 2:
        return None
    target_ND, output_ND = np.array(features).transpose(1, 0, 2)
    return frechet_distance(target_ND, output_ND)


def _measure_ned(
    pairs: Sequence[Pair],
    scores: list[PairScore],
    keys: Mapping[Path, str],
    journal: Journal,
    choice: ScoreChoice,
    readers: dict[str, str],
    progress: ProgressReport,
) -> dict[str, Any]:
    """Fills in the NEDs; returns what ned_details.json holds."""
    details = []
    for role, reader in (("ned", choice.reader), ("ned_second", choice.second)):
        if reader is None:
            continue
        readings, failed = _read_all(pairs, keys, journal, reader, choice.processes, role, progress)
        for pair, score in zip(pairs, scores, strict=True):
            sides = [(side, keys[path]) for side, path in (("original", pair.target), ("reconstruction", pair.output))]
            problems = [f"{side}: {failed[key]}" for side, key in sides if key in failed]
            if problems:
                score.left_out[role] = "; ".join(problems)
                continue
            target, output = (readings[key] for _, key in sides)
            readers[role] = target.reader
            text, read = join_lines(target), join_lines(output)
            if not text:
                score.left_out[role] = "nothing is read on the original"
                continue
            value = raw_ned(text, read)
            if role == "ned_second":
                score.ned_second = value
                continue
            score.ned, score.ned_mended = (
                value,
                raw_ned(join_lines(target, mended=True), join_lines(output, mended=True)),
            )
            detail = {"file": pair.name, "gt_text": text, "rec_text": read, "ned": round(value, 4)}
            details.append(detail | {"ned_mended": round(score.ned_mended, 4)})
    return {"details": details}


def _read_all(
    pairs: Sequence[Pair],
    keys: Mapping[Path, str],
    journal: Journal,
    reader: ReaderChoice,
    processes: int,
    stage: str,
    progress: ProgressReport,
) -> tuple[dict[str, PageReading], dict[str, str]]:
    """Content key -> what is read on it, and content key -> why nothing could be. Equal files are read once."""
    setup = json.dumps(dataclasses.asdict(reader))
    device = reader.device if reader.name == "torch" else "cpu"
    paths = {keys[path]: path for pair in pairs for path in (pair.target, pair.output)}
    waiting = [key for key in paths if f"{key} {setup}" not in journal]
    failed: dict[str, str] = {}
    done = len(paths) - len(waiting)
    progress(stage, done, len(paths), {})
    for number, reading in read_files([paths[key] for key in waiting], reader, processes=_sharing(processes, device)):
        done += 1
        if isinstance(reading, Died):
            failed[waiting[number]] = reading.reason
        else:
            journal.add(f"{waiting[number]} {setup}", dataclasses.asdict(reading))
        progress(stage, done, len(paths), {"failed": len(failed)} if failed else {})
    known = {key: PageReading.from_dict(journal[f"{key} {setup}"]) for key in paths if key not in failed}
    return known, failed


def _sharing(processes: int, device: str) -> int:
    return processes if device == "cpu" else min(processes, GPU_PROCESSES)


def join_lines(reading: PageReading, *, mended: bool = False) -> str:
    """The text of a page as the public script joins it: line after line with nothing between, in the reader's order."""
    lines = reading.lines
    if mended:
        lines = tuple(lines[index] for index in reading_order([line.quad_px for line in lines]))
    return "".join(line.text for line in lines)


def raw_ned(truth: str, read: str) -> float:
    """1 - Levenshtein / length of the longer, of the texts as they are; `truth` must not be empty."""
    return 1.0 - Levenshtein.distance(truth, read) / max(len(truth), len(read))


def _identity(weights: str | None) -> Any:
    """Tells one weight file from another without reading half a gigabyte."""
    if weights is None:
        return None
    try:
        state = Path(weights).stat()
    except OSError as error:
        raise BadInput(f"{weights}: the weights cannot be read ({error.strerror})") from error
    return [Path(weights).name, state.st_size, state.st_mtime_ns]


def find_weights(vgg: Path | None, inception: Path | None) -> tuple[str | None, str | None]:
    """The weight files of LPIPS and FID: as given, else where torch keeps downloads, else None."""
    downloads = Path(torch.hub.get_dir()) / "checkpoints"
    found = []
    for given, name in ((vgg, VGG_FILE), (inception, WEIGHTS_FILE)):
        path = given or downloads / name
        found.append(str(path) if given is not None or path.is_file() else None)
    return found[0], found[1]


def choose_second(name: str, reader: str) -> ReaderChoice | None:
    """The second reader of that name; auto: tesseract when it is installed and not the first reader."""
    if name == "none":
        return None
    if name == "auto":
        return ReaderChoice(name="tesseract") if reader != "tesseract" and shutil.which("tesseract") else None
    return ReaderChoice(name=name)
