"""The dataset card says what is there and under which licences, and `datasets` reads the folder by it."""

from pathlib import Path

import datasets
import yaml

from datagen.card import CARD, dataset_card
from datagen.commit import RunTotals, publish_shard
from datagen.schema import SCHEMA, with_metadata
from datagen.shards import build_shard
from datagen.storage import Folder


def test_the_card_counts_rows_and_reasons_and_names_every_licence() -> None:
    totals = RunTotals(kept=9, reasons={"illegible": 3, "low_contrast": 1})
    licences = {"Photographs": [("a.jpg", "CC0-1.0"), ("b.jpg", "CC-BY-2.0"), ("c.jpg", "CC0-1.0")]}
    card = dataset_card("Pictures", "glyphmill generate", totals, licences, ["Mind the gap."])
    assert "9 pictures kept, 4 rejected" in card
    assert "| illegible | 3 |" in card
    assert "- CC0-1.0: a.jpg, c.jpg" in card
    assert "- CC-BY-2.0: b.jpg" in card
    assert "Mind the gap." in card


def test_datasets_reads_the_kept_rows_of_the_folder_by_its_card(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    schema = with_metadata(SCHEMA, {})
    row = dict.fromkeys(SCHEMA.names)
    kept = build_shard([row | {"row_id": "kept", "keep": True, "reason": ""}], schema)
    rejected = build_shard([row | {"row_id": "rejected", "keep": False, "reason": "illegible"}], schema)
    publish_shard(folder, "0" * 16, 0, kept, rejected, {"illegible": 1})
    totals = RunTotals(kept=1, reasons={"illegible": 1})
    folder.publish(CARD, dataset_card("Pictures", "glyphmill generate", totals, {}).encode())
    loaded = datasets.load_dataset(str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded["row_id"][:] == ["kept"]
    header = (tmp_path / "run" / CARD).read_text().split("---")[1]
    assert [config["config_name"] for config in yaml.safe_load(header)["configs"]] == ["default", "rejected"]
