"""Pictures from tars, tables, PDFs and buckets: all of them found, described, read without loss; bad ones set aside."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from PIL import Image
from pyarrow import fs
from pyarrow import parquet as pq
from s3_server import S3Server, s3_server

from datagen.codec import decode_png
from datagen.commit import read_rows
from datagen.containers import Columns
from datagen.criteria import ingest_recipe
from datagen.decode import ImageProblem
from datagen.filter import filter_corpus
from datagen.ingest import IngestConfig, RealPlace, list_items, read_item, row_id
from fonts_manifest.errors import BadInput


def picture(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pdf(pages: int) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.fromarray(picture(90 + n, 72, 72)) for n in range(pages)]
    first.save(file, "PDF", save_all=True, append_images=others, resolution=72)
    return file.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def config_for(*places: object, **settings: object) -> IngestConfig:
    return IngestConfig(places=tuple(RealPlace(place=str(place), licence="CC0-1.0") for place in places), **settings)


def test_members_of_a_tar_come_with_what_stands_beside_them(tmp_path):
    beside = json.dumps({"license": "CC-BY-4.0", "url": "https://example.org/b.png", "width": 3}).encode()
    path = tar(
        tmp_path / "a.tar",
        [
            ("0001.png", png(picture(1))),
            ("0001.txt", "two cats, 两只猫\n".encode()),
            ("deep/0002.json", beside),
            ("deep/0002.left.png", png(picture(2))),
            ("deep/0002.right.png", png(picture(3))),
            ("0003.cls", b"7"),
            ("0004.pdf", pdf(2)),
            ("0005.json", b"[1, 2"),
            ("0005.png", png(picture(5))),
        ],
    )
    items = list_items(config_for(path))
    assert [item.origin for item in items] == [
        f"{path}#0001.png",
        "https://example.org/b.png",
        "https://example.org/b.png",
        f"{path}#0004.pdf#page=1",
        f"{path}#0004.pdf#page=2",
        f"{path}#0005.png",
    ]
    assert [item.caption for item in items[:2]] == ["two cats, 两只猫", None]
    assert [item.licence for item in items] == ["CC0-1.0", "CC-BY-4.0", "CC-BY-4.0", "CC0-1.0", "CC0-1.0", "CC0-1.0"]
    assert len({row_id(item) for item in items}) == 6
    for item, seed in ((items[0], 1), (items[1], 2), (items[2], 3), (items[5], 5)):
        np.testing.assert_array_equal(read_item(item, config_for(path)), picture(seed))
    assert read_item(items[4], config_for(path, pdf_dpi=144)).shape == (144, 144, 3)


def test_members_that_would_escape_are_only_names(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../../evil.png", "/etc/evil.png"):
            member = tarfile.TarInfo(name)
            data = png(picture(len(name)))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    out = tmp_path / "deep" / "er" / "out"
    filter_corpus(ingest_recipe([str(path)], "CC0-1.0"), "0" * 16, str(out), executor="serial")
    rows = read_rows(out).to_pylist()
    assert [row["origin"] for row in rows] == [f"{path}#../../evil.png", f"{path}#/etc/evil.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "evil.tar"]
    assert {p.suffix for p in out.rglob("*") if p.is_file()} <= {".parquet", ".json", ".md", ""}


def test_a_tar_that_is_cut_off_yields_what_was_whole(tmp_path):
    path = tar(tmp_path / "a.tar", [("1.png", png(picture(1))), ("2.png", png(picture(2, 80, 80)))])
    path.write_bytes(path.read_bytes()[: -10240 - 9000])
    first, second = list_items(config_for(path))
    np.testing.assert_array_equal(read_item(first, config_for(path)), picture(1))
    assert (second.problem, second.detail) == ("damaged", "the archive ends inside it")


def test_archives_without_an_index_are_set_aside(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.png"))
    (item,) = list_items(config_for(tmp_path))
    assert item.problem == "compressed_archive"


def test_rows_of_parquet_by_the_names_of_their_columns(tmp_path):
    table = pa.table(
        {
            "jpg": pa.array([png(picture(1)), png(picture(2)), None, png(picture(4))], pa.binary()),
            "text": ["one", None, "three", "four"],
            "license": ["MIT", None, None, None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    columns = Columns(image="jpg", caption="text")
    config = config_for(tmp_path, columns=columns)
    items = list_items(config)
    assert [item.origin for item in items] == [f"{tmp_path}/a.parquet#row={n}" for n in (1, 2, 3, 4)]
    assert [item.caption for item in items] == ["one", None, "three", "four"]
    assert [item.licence for item in items] == ["MIT", "CC0-1.0", "CC0-1.0", "CC0-1.0"]
    for item, seed in ((items[3], 4), (items[0], 1), (items[1], 2)):
        np.testing.assert_array_equal(read_item(item, config), picture(seed))
    with pytest.raises(ImageProblem, match="no_picture: null"):
        read_item(items[2], config)


def test_datasets_of_hugging_face_in_parquet_and_in_arrow(tmp_path):
    images = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    dataset = datasets.Dataset.from_dict({"image": images}, features=datasets.Features(image=datasets.Image()))
    dataset.to_parquet(str(tmp_path / "p" / "train.parquet"))
    dataset.save_to_disk(str(tmp_path / "d"))
    for folder in ("p", "d"):
        config = config_for(tmp_path / folder)
        items = list_items(config)
        assert len(items) == 2
        for item, seed in zip(items, (1, 2), strict=True):
            np.testing.assert_array_equal(read_item(item, config), picture(seed))


def test_a_path_in_a_table_is_never_opened(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(picture(1)))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}], kind)
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    config = config_for(tmp_path / "a.parquet")
    (item,) = list_items(config)
    with pytest.raises(ImageProblem, match="no_picture: only a path"):
        read_item(item, config)


@pytest.mark.parametrize(
    ("table", "reason", "detail"),
    [
        (
            {"img": [b"x"], "note": ["a"]},
            "no_image_column",
            "no column 'image' among img, note; set input",
        ),
        ({"image": ["a text"]}, "no_image_column", "column 'image' holds string, neither bytes nor pictures"),
    ],
)
def test_a_table_without_the_column_is_set_aside_with_those_there_are(tmp_path, table, reason, detail):
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (item,) = list_items(config_for(tmp_path))
    assert (item.problem, item.detail.partition(".columns")[0]) == (reason, detail)


def test_a_cut_parquet_file_is_damaged(tmp_path):
    pq.write_table(pa.table({"image": [png(picture(1))]}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    (item,) = list_items(config_for(tmp_path))
    assert item.problem == "damaged"


def test_the_content_tells_containers_apart_not_the_name(tmp_path):
    (tmp_path / "photo.tar").write_bytes(png(picture(1)))
    (tmp_path / "page.jpg").write_bytes(pdf(1))
    origins = [item.origin.rpartition("/")[2] for item in list_items(config_for(tmp_path))]
    assert origins == ["page.jpg#page=1", "photo.tar"]


def test_ingesting_keeps_every_picture_unread_and_unjudged(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "tiny.png").write_bytes(png(picture(1)))
    (source / "again.png").write_bytes(png(picture(1)))
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(source / "black.png")
    (source / "broken.png").write_bytes(b"no picture")
    tar(source / "a.tar", [("1.png", png(picture(7))), ("1.txt", b"seven")])
    out = tmp_path / "out"
    report = filter_corpus(ingest_recipe([str(source)], "CC0-1.0"), "0" * 16, str(out), executor="serial")
    assert (report.seen, report.kept, report.reasons) == (5, 3, {"duplicate": 1, "not_an_image": 1})
    rows = {row["origin"].rpartition("/")[2]: row for row in read_rows(out, keep=True).to_pylist()}
    np.testing.assert_array_equal(decode_png(rows["a.tar#1.png"]["image"]["bytes"]), picture(7))
    assert rows["a.tar#1.png"]["caption"] == "seven"
    assert rows["a.tar#1.png"]["pixels_xxh3"] == xxhash.xxh3_128_hexdigest(picture(7))
    assert (rows["black.png"]["characters"], rows["black.png"]["judged_by"]) == (None, "rules")
    # What was ingested is a corpus again, with its own licences and origins.
    again = list_items(config_for(out / "data", columns=Columns(licence="licence", origin="origin")))
    assert {item.origin for item in again} == {row["origin"] for row in rows.values()}


def test_a_setting_that_there_is_not_is_one_sentence():
    with pytest.raises(BadInput, match="unknown key 'pdf_dip'; the nearest known key is 'pdf_dpi'"):
        ingest_recipe(["x"], "y", ["pdf_dip=3"])
    with pytest.raises(BadInput, match="pdf_dpi"):
        ingest_recipe(["x"], "y", ["pdf_dpi=3"])


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def address(server: S3Server, path: str) -> str:
    return f"s3://key:hushhush@{path}?endpoint_override=127.0.0.1:{server.port}&scheme=http"


def test_a_bucket_is_read_like_a_folder_and_its_password_stays_out_of_the_rows(s3, tmp_path):
    filesystem, root = fs.FileSystem.from_uri(address(s3, "mill/in"))
    archive = tar(tmp_path / "b.tar", [("2.png", png(picture(2)))]).read_bytes()
    for name, data in (("a/1 #.png", png(picture(1))), ("b.tar", archive), ("notes.txt", b"not looked at")):
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(data)
    out = tmp_path / "out"
    recipe = ingest_recipe([address(s3, "mill/in")], "CC0-1.0")
    filter_corpus(recipe, "0" * 16, str(out), executor="serial")
    rows = read_rows(out).to_pylist()
    assert [row["origin"] for row in rows] == ["s3://mill/in/a/1 #.png", "s3://mill/in/b.tar#2.png"]
    for row, seed in zip(rows, (1, 2), strict=True):
        np.testing.assert_array_equal(decode_png(row["image"]["bytes"]), picture(seed))
    assert not [path for path in out.rglob("*") if path.is_file() and b"hushhush" in path.read_bytes()]


def test_a_bucket_that_cannot_be_read_is_counted_and_the_rest_goes_on(s3, tmp_path):
    (tmp_path / "a.png").write_bytes(png(picture(1)))
    broken, good = list_items(config_for(address(s3, "nobodys-bucket/x"), tmp_path / "a.png"))
    assert (broken.problem, broken.origin) == ("unreadable_place", "s3://nobodys-bucket/x")
    assert "hushhush" not in broken.detail
    assert good.problem is None


def test_objects_that_may_not_be_read_are_set_aside_one_by_one(s3):
    filesystem, root = fs.FileSystem.from_uri(address(s3, "mill/locked"))
    for name in ("open.png", "shut.png"):
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(png(picture(len(name))))
    s3.refuse = lambda method, path, query: method == "GET" and path.endswith("shut.png")
    try:
        items = list_items(config_for(address(s3, "mill/locked")))
    finally:
        s3.refuse = None
    assert [item.problem for item in items] == [None, "unreadable_file"]


def test_the_card_names_places_and_licences_not_every_picture(tmp_path):
    members = [(f"{n}.png", png(picture(n))) for n in range(3)] + [("2.json", b'{"license": "MIT"}')]
    path = tar(tmp_path / "a.tar", members)
    filter_corpus(ingest_recipe([str(path)], "CC0-1.0"), "0" * 16, str(tmp_path / "out"), executor="serial")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- CC0-1.0: {path}" in card
    assert "- MIT: 1 by their own rows" in card
    assert "#0.png" not in card
