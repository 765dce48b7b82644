"""The Hugging Face dataset card beside the data: what it holds, how it was made, under which licences."""

from collections import Counter
from collections.abc import Iterable, Mapping

import yaml

from datagen.commit import RunTotals

CARD = "README.md"


def dataset_card(
    title: str,
    command: str,
    totals: RunTotals,
    licences: Mapping[str, Iterable[tuple[str, str]]],
    notes: Iterable[str] = (),
) -> str:
    """Markdown with the YAML header that makes `datasets.load_dataset(FOLDER)` read the kept rows.

    title: one sentence. command: what made the data. licences: kind of material -> (name, licence) of each piece.
    notes: sentences that a user of the data must know.
    """
    reasons = Counter(totals.reasons)
    header = {
        "tags": ["text-rendering", "ocr", "glyphmill"],
        "language": ["en", "zh"],
        "configs": [
            {"config_name": "default", "data_files": "data/*.parquet"},
            *([{"config_name": "rejected", "data_files": "rejected/*.parquet"}] if reasons else []),
        ],
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {title}\n",
        f"{totals.kept:,} pictures kept, {sum(reasons.values()):,} rejected with a reason.\n",
        f"Made by `{command}`; the resolved recipe is in `recipe.yaml`, the library versions are in `run.json`.\n",
        "```python\nimport datasets\n\npictures = datasets.load_dataset(FOLDER)  # this folder\n```\n",
        *(f"{note}\n" for note in notes),
    ]
    if reasons:
        parts.append("## Rejected\n\n" + _table("reason", reasons))
    parts.append("## Licences\n")
    for kind, pieces in licences.items():
        by_licence: dict[str, set[str]] = {}
        for name, licence in pieces:
            by_licence.setdefault(licence, set()).add(name)
        lines = [f"- {licence}: {', '.join(sorted(names))}" for licence, names in sorted(by_licence.items())]
        parts.append(f"{kind}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(name: str, counts: Counter[str]) -> str:
    rows = "".join(f"| {key} | {count:,} |\n" for key, count in counts.most_common())
    return f"| {name} | pictures |\n| --- | --- |\n{rows}"
