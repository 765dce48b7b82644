"""The human inspection of a benchmark: one page that needs nothing but a browser, and its decisions applied."""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from vae.candidates import Candidate
from vae.tokenbench import DECISIONS, BuildReport, assemble, read_candidates

PAGE = "review.html"
_TEMPLATE = Path(__file__).with_name("review.html")
_CROPS_A_PAGE = 600
"""About 20 MB of HTML; a benchmark with more is inspected in parts."""
_MAX_DECISION_BYTES = 64 << 20


class Decision(BaseModel):
    """What a person said of one crop."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    decision: Literal["keep", "drop"]
    why: str = ""


class Decisions(BaseModel):
    """What the page saves."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    benchmark: str
    decisions: dict[str, Decision]


def write_review(out: Path, crops_a_page: int = _CROPS_A_PAGE) -> list[Path]:
    """Write the inspection page of the benchmark in `out`; several linked ones beyond `crops_a_page` crops.

    Shown is every crop that was read, kept ones first as a person meets them; those that a rule dropped can be looked
    at and taken back. Keys: K keep, D drop, U undo, S save; decisions stay in the browser until they are saved.
    """
    candidates = [candidate for candidate in read_candidates(out) if candidate.characters is not None]
    # What a person dropped is shown as kept by the rules, so that the page made again looks the same.
    candidates.sort(key=lambda c: (c.reason not in ("", "human_dropped"), c.lang or "", c.category, c.page, c.file))
    parts = [candidates[start : start + crops_a_page] for start in range(0, len(candidates), crops_a_page)] or [[]]
    names = [PAGE, *(f"review-{number}.html" for number in range(2, len(parts) + 1))]
    template = _TEMPLATE.read_text(encoding="utf-8")
    store = Folder(str(out))
    for name, part in zip(names, parts, strict=True):
        data = {
            "benchmark": benchmark_id(candidates),
            "part": name,
            "parts": names,
            "crops": [_shown(out, candidate) for candidate in part],
        }
        # Inside a script element `</` ends it and `<!--` changes how it is read: JSON may escape every `<`.
        embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
        store.publish(name, template.replace("/*DATA*/", embedded).encode())
    return [out / name for name in names]


def apply_review(out: Path, reviews: Sequence[Path]) -> BuildReport:
    """Take in saved decisions and lay the benchmark out again; later files overrule earlier ones.

    They are kept in `out` and hold in every later build. Raises BadInput for decisions on another benchmark, or on
    crops that are not in this one.
    """
    candidates = {c.file: c for c in read_candidates(out) if c.characters is not None}
    expected = benchmark_id(list(candidates.values()))
    store = Folder(str(out))
    merged: dict[str, Decision] = {}
    if store.exists(DECISIONS):
        merged |= _read_decisions(out / DECISIONS).decisions
    for path in reviews:
        read = _read_decisions(path)
        if read.benchmark != expected:
            raise BadInput(
                f"{path}: these decisions belong to another benchmark ({read.benchmark}, this is {expected}); "
                "inspect the review page of this one"
            )
        unknown = sorted(set(read.decisions) - set(candidates))
        if unknown:
            raise BadInput(f"{path}: {unknown[0]!r} is no crop of {out}")
        merged |= read.decisions
    decisions = Decisions(benchmark=expected, decisions=dict(sorted(merged.items())))
    store.publish(DECISIONS, (decisions.model_dump_json(indent=1) + "\n").encode())
    return assemble(out)


def benchmark_id(candidates: Sequence[Candidate]) -> str:
    """Which crops there are and what was read on them, in 16 hex digits: decisions name it."""
    lines = sorted(f"{c.file}\t{c.page}\t{c.crop_box_px}\t{c.text}" for c in candidates)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _read_decisions(path: Path) -> Decisions:
    try:
        if path.stat().st_size > _MAX_DECISION_BYTES:
            raise BadInput(f"{path}: over 64 MiB, this is no file of decisions")
        return Decisions.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{path}: {where}: {first['msg']}; save decisions on the review page") from None


def _shown(out: Path, candidate: Candidate) -> dict[str, object]:
    """A crop as the page takes it: its picture without loss, its figures as texts."""
    buffer = io.BytesIO()
    with Image.open(out / "candidates" / candidate.file) as image:
        image.save(buffer, "WEBP", lossless=True, quality=30, method=1)
    by_hand = candidate.reason == "human_dropped"
    box = candidate.crop_box_px or (0, 0, 0, 0)
    facts = [
        ("crop", candidate.file),
        ("page", candidate.page),
        ("kind", f"{candidate.lang}, {candidate.category}"),
        ("characters", f"{candidate.characters}, read with a mean score of {candidate.score:.3f}"),
        ("sharpness", f"{candidate.sharpness:.2f}" if candidate.sharpness is not None else "unknown"),
        ("blank", f"{100 * (candidate.blank_share or 0):.0f} % of its tiles"),
        ("on the page", f"from ({box[0]:.0f}, {box[1]:.0f}), {box[2] - box[0]:.0f} px a side"),
        ("scale", f"{candidate.scale:.2f}"),
        ("large variant", "yes" if candidate.large else "no"),
    ]
    return {
        "file": candidate.file,
        "src": "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "reason": "" if by_hand else candidate.reason,
        "detail": "" if by_hand else candidate.detail,
        "text": candidate.text or "",
        "facts": facts,
    }
