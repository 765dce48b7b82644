"""How pictures were judged, for a person to look at: the calibration's curves, and what the audit of a run found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from datagen.agreement import clustered_interval
from datagen.audit import CALIBRATION, JUDGED_COLUMNS
from datagen.cascade import Calibration, CurvePoint, calibration_from_json
from datagen.charts import lines_svg
from datagen.commit import read_rows
from datagen.judge import JudgeConfig
from datagen.page import facts, grid, paragraph, table, write_page
from datagen.storage import Folder

Rows = Sequence[Mapping[str, Any]]


def describe_calibration(calibration: Calibration, config: JudgeConfig) -> str:
    """The figures as lines for a terminal."""
    point = calibration.operating_point(config)
    lines = [
        f"{calibration.lines:,} lines of {calibration.pages} pages read by {calibration.reader}",
        f'{calibration.legible_share:.3f} of the lines are legible: so often would "keep everything" be right',
        "cross-validated, for this share of the cost of full OCR -> decisions as by full OCR [95 %]:",
        *(f"  {p.cost_share:6.3f} -> {p.agreement:.4f} [{p.low:.3f}, {p.high:.3f}]" for p in _shown(calibration.curve)),
        f"with judge.agreement={config.agreement:g} and judge.ocr_share={config.ocr_share:g}: {_point(point)}",
    ]
    return "\n".join(lines)


def _shown(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Points near round shares."""
    wanted = (0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5)
    costs = np.array([point.cost_share for point in curve])
    return [curve[number] for number in dict.fromkeys(int(np.abs(costs - share).argmin()) for share in wanted)]


def _point(point: CurvePoint) -> str:
    return (
        f"{point.lines_share:.1%} of the lines are read at {point.cost_share:.1%} of the cost, "
        f"agreement {point.agreement:.4f} [{point.low:.3f}, {point.high:.3f}]"
    )


def write_calibration_page(calibration: Calibration, config: JudgeConfig, path: Path) -> None:
    """One self-contained HTML page about a calibration."""
    sections = [
        ("Agreement against cost", calibration_html(calibration, config)),
        ("What it was made for", table(["", ""], [[k, str(v)] for k, v in _origin(calibration).items()])),
    ]
    lead = f"{calibration.lines:,} lines of {calibration.pages} pages, read by {calibration.reader}."
    write_page(path, "The calibration of the judge", lead, sections)


def _origin(calibration: Calibration) -> dict[str, Any]:
    return {"sha256": calibration.digest} | calibration.rules | calibration.made_for


def calibration_html(calibration: Calibration, config: JudgeConfig) -> str:
    """Figures and curves of a calibration."""
    point = calibration.operating_point(config)
    pairs = [
        (f"{point.agreement:.1%}", "of the lines decided as full OCR decides them (cross-validated)"),
        (f"{point.low:.1%} to {point.high:.1%}", "95 % interval, lines clustered in pages"),
        (f"{point.cost_share:.1%}", "of the cost of full OCR"),
        (f"{calibration.legible_share:.1%}", 'legible: what "keep everything" would agree on'),
    ]
    text = (
        f"Reading every line would take longer than all the rest. {calibration.lines:,} lines of {calibration.pages} "
        f"pages, none of them in the run, were read by {calibration.reader}, each against its own clean print. A model "
        "fitted to them gives every line a chance to be legible, and what is read of a page moves the chances of all "
        "its lines. OCR reads where that saves most wrong decisions for its cost, here "
        f"{point.lines_share:.1%} of the lines. Every line of the curves was judged by a model that had seen nothing "
        "of its page."
    )
    near = [p for p in calibration.curve if p.cost_share <= 0.3]
    shares = [p.cost_share for p in near]
    kept = calibration.legible_share
    curve = lines_svg(
        {
            "cascade": (shares, [p.agreement for p in near]),
            "95 % low": (shares, [p.low for p in near]),
            "read at random": (shares, [kept + (1 - kept) * share for share in shares]),
            "target": ([shares[0], shares[-1]], [config.agreement] * 2),
        },
        x_label="share of the cost of full OCR",
        y_label="decided as by full OCR",
    )
    bins = calibration.reliability
    trust = lines_svg(
        {
            "observed": ([b.chance for b in bins], [b.legible for b in bins]),
            "as predicted": ([bins[0].chance, bins[-1].chance], [bins[0].chance, bins[-1].chance]),
        },
        x_label="chance to be legible, by the model",
        y_label="share that OCR calls legible",
    )
    return facts(pairs) + paragraph(text) + grid([curve, trust], wide=True)


def judged_section(run: str | Path) -> str:
    """How a run of synthetic pictures was judged; "" when no cascade judged it."""
    folder = Folder(str(run))
    if not folder.exists(CALIBRATION):
        return ""
    calibration = calibration_from_json(folder.read(CALIBRATION), folder.describe(CALIBRATION))
    config = JudgeConfig.model_validate(yaml.safe_load(folder.read("recipe.yaml")).get("judge") or {})
    rows = read_rows(folder, columns=list(JUDGED_COLUMNS)).to_pylist()
    return _audit_html(rows) + "<h3>The calibration</h3>" + calibration_html(calibration, config)


def _audit_html(rows: Rows) -> str:
    judged = [row for row in rows if row["judged_by"] in ("cascade", "ocr")]
    audited = [row for row in judged if row["audit"] is not None]
    lines = sum(len(row["lines"] or ()) for row in judged)
    read = sum(line["read_ned"] is not None for row in judged for line in row["lines"] or ())
    pairs = [
        (f"{read:,} of {lines:,}", "lines read by OCR in this run"),
        (f"{len(audited):,} of {len(judged):,}", "pages audited: taken at random and read in full"),
    ]
    if not audited:
        note = "No page fell into the audit: the run is too small for its share (judge.audit) to say anything."
        return facts(pairs) + paragraph(note, note=True)
    note = (
        "What the cascade had decided of the audited pages, beside what OCR says of them. Intervals are 95 %; lines of "
        "one page count as the cluster they are."
    )
    header = ["", "compared", "agree", "95 % interval", "cascade keeps, OCR drops", "cascade drops, OCR keeps"]
    ned = lines_svg(_ned_by_size(audited), x_label="em, px", y_label="NED relative to clean print, audited pages")
    return facts(pairs) + paragraph(note, note=True) + table(header, audit_rows(audited)) + grid([ned], wide=True)


def audit_rows(audited: Rows) -> list[list[str]]:
    """Two lines of a table, of lines and of pages: how many were compared, agreement, interval, both errors."""
    kinds = {
        "lines": [(len(row["lines"]), row["audit"]["false_keep"], row["audit"]["false_drop"]) for row in audited],
        "pages": [
            (1, int(row["audit"]["keep"] and not row["keep"]), int(row["keep"] and not row["audit"]["keep"]))
            for row in audited
        ],
    }
    found = []
    for name, counts in kinds.items():
        trials_P, keep_P, drop_P = np.array(counts, np.float64).T
        right_P = trials_P - keep_P - drop_P
        low, high = clustered_interval(right_P, trials_P)
        trials = trials_P.sum()
        shown = (f"{trials:,.0f}", f"{right_P.sum() / trials:.4f}", f"{low:.3f} to {high:.3f}")
        found.append([name, *shown, f"{keep_P.sum():.0f}", f"{drop_P.sum():.0f}"])
    return found


def _ned_by_size(audited: Rows) -> dict[str, tuple[list[float], list[float]]]:
    """Language -> (em in px, mean NED of its lines relative to clean print), by whole pixels."""
    found: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in audited:
        for line in row["lines"]:
            if line["clean_ned"]:
                found[line["lang"]][round(line["size_px"])].append(min(1.0, line["read_ned"] / line["clean_ned"]))
    return {
        lang: ([float(size) for size in sorted(sizes)], [float(np.mean(sizes[size])) for size in sorted(sizes)])
        for lang, sizes in sorted(found.items())
    }
