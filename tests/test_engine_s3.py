"""Runs in object stores, on a real S3 endpoint: whole objects or none, few requests, one sentence when it fails."""

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_runs import data_bytes, make_inputs, make_recipe, run
from PIL import Image
from s3_server import ACCESS, S3Server, s3_server

from datagen import commit
from datagen.commit import RunIdentity
from datagen.filter import FilterRecipe, filter_corpus
from datagen.generate import generate
from datagen.ingest import IngestConfig, RealPlace
from datagen.plan import KeepAll
from datagen.recipes import recipe_hash
from datagen.spool import CHUNK_BYTES, Spool
from datagen.storage import Folder
from datagen.verify import verify_run
from fonts_manifest.errors import BadInput

PART = CHUNK_BYTES
"""Bytes that pyarrow uploads at a time."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ACCESS.items():
            patch.setenv(name, value)
        with s3_server() as running:
            yield running


@pytest.fixture
def store(server: S3Server) -> Iterator[S3Server]:
    server.counts.clear()
    yield server
    server.refuse = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def test_a_small_object_is_one_request_and_any_object_is_read_in_one(store: S3Server) -> None:
    folder = Folder(store.place("requests"))
    folder.publish("small", b"x")
    assert store.counts == {"PUT": 1}
    folder.publish("large", bytes(2 * PART + 5))
    store.counts.clear()
    assert len(folder.read("large")) == 2 * PART + 5
    assert store.counts == {"HEAD": 1, "GET": 1}


def test_one_listing_of_2500_records_is_three_answers(store: S3Server) -> None:
    folder = Folder(store.place("records"))
    store.fill(f"records/_commits/{shard:08d}.json" for shard in range(2500))
    identity = RunIdentity(recipe_hash="0" * 16, shards=2501)
    folder.publish(commit.RUN, b'{"recipe_hash":"0000000000000000","shards":2501}')
    store.counts.clear()
    store.pages.clear()
    assert commit.start_run(folder, identity) == set(range(2500))
    assert len(store.pages) == 3
    assert store.counts.keys() <= {"LIST", "HEAD", "GET"}  # is run.json there, what does it say


def _spooled(size: int) -> Spool:
    spool = Spool()
    spool.write(bytes(size))
    return spool


@pytest.mark.parametrize("kind", [bytes, _spooled])
@pytest.mark.parametrize("refused", ["part", "last part", "completion"])
def test_an_upload_that_fails_half_way_leaves_no_object(
    store: S3Server, refused: str, kind: Callable[[int], bytes | Spool]
) -> None:
    folder = Folder(store.place(f"half/{kind.__name__}/{refused.replace(' ', '-')}"))

    def refuse(method: str, path: str, query: dict[str, list[str]]) -> bool:
        if refused == "completion":
            return method == "POST" and "uploadId" in query
        return query.get("partNumber") == (["2"] if refused == "part" else ["3"])

    folder.publish("before", b"what stood there")
    store.refuse = refuse
    for path in ("shard", "before"):
        with pytest.raises(BadInput, match="may not be read or written with the credentials at hand"):
            folder.publish(path, kind(2 * PART + 5))
        gc.collect()  # a stream that is thrown away closes itself
    store.refuse = None
    assert folder.names(".") == ["before"]
    assert folder.read("before") == b"what stood there"


INTERRUPTED = """
import gc, itertools, sys
from datagen.spool import Spool
from datagen.storage import Folder

class Interrupted(Spool):
    def __init__(self, chunks):
        super().__init__()
        self.write(bytes(25 << 20))
        self.number = chunks

    def chunks(self):
        yield from itertools.islice(super().chunks(), self.number)
        raise KeyboardInterrupt

for number in range(4):
    for path in ("before", f"shard {number}"):
        try:
            Folder(sys.argv[1]).publish(path, Interrupted(number))
        except KeyboardInterrupt:
            gc.collect()
print(sorted(Folder(sys.argv[1]).names(".")))
"""


def test_an_upload_that_is_interrupted_between_two_chunks_leaves_no_object_nor_does_the_end_of_its_process(
    store: S3Server,
) -> None:
    # In a process of its own: a stream that closes itself waits for the server, which could not answer in this one.
    folder = Folder(store.place("interrupted"))
    folder.publish("before", b"what stood there")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", INTERRUPTED, folder.place]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "['before']\n"
    assert store.counts["POST"] > 0  # more than nothing was sent
    assert folder.names(".") == ["before"]
    assert folder.read("before") == b"what stood there"


def test_a_slow_line_holds_no_more_than_some_chunks_back(store: S3Server) -> None:
    # The stream would take all chunks at once; here each is sent before the fifth after it is read.
    sent: list[int] = []
    read: list[tuple[int, int]] = []
    all_read = threading.Event()

    class Watched(Spool):
        def chunks(self) -> Iterator[bytes]:
            for number, chunk in enumerate(super().chunks()):
                read.append((number, len(sent)))
                if number == 5:
                    all_read.set()
                yield chunk

    def late(method: str, path: str, query: dict[str, list[str]]) -> bool:
        if "partNumber" in query:
            all_read.wait(0.8)
            sent.append(1)
        return False

    spool = Watched()
    spool.write(bytes(6 * PART))
    store.refuse = late
    Folder(store.place("slow")).publish("shard", spool)
    assert len(sent) == 6
    assert max(number - done for number, done in read) <= 4


def test_a_run_in_s3_holds_the_bytes_of_a_run_on_disk(store: S3Server, folder: Path, tmp_path: Path) -> None:
    out = store.place("whole")
    run(folder, tmp_path)
    assert run(folder, out).kept == 30
    assert data_bytes(out) == data_bytes(tmp_path)
    said = verify_run(out, 5)
    assert said.startswith("s3://mill/whole: whole: ")
    assert "30 rows kept" in said
    assert "5 of them drawn again, pixel for pixel equal" in said
    store.counts.clear()
    assert run(folder, out).shards_before == 5
    assert store.counts["PUT"] == 0
    # What was published and never committed goes, and only that.
    Folder(out).publish("data/000000000000-00000099.parquet", b"of a run that died before its commit")
    assert "1 files belong to no run" in verify_run(out, 0)
    assert commit.gc(out) == ["data/000000000000-00000099.parquet"]
    assert data_bytes(out) == data_bytes(tmp_path)
    changed = Folder(out).names("data")[0]
    Folder(out).publish(f"data/{changed}", b"something else")
    with pytest.raises(BadInput, match=rf"^s3://mill/whole/data/{changed}: its 14 bytes are not those"):
        verify_run(out)


def test_another_recipe_is_refused_in_the_same_place(store: S3Server, folder: Path) -> None:
    out = store.place("recipes")
    run(folder, out, rows=6)
    other = make_recipe(folder, rows=6, seed=6)
    with pytest.raises(BadInput, match=r"^s3://mill/recipes: cannot go on with the run in it: the recipe hash was"):
        generate(other, recipe_hash(other), "", out, executor="serial", judge=KeepAll())


def test_filter_writes_to_s3_as_well(store: S3Server, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):  # too small for the first rule: nothing is read
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / "in" / f"{number}.png")
    recipe = FilterRecipe(input=IngestConfig(places=(RealPlace(place=str(tmp_path / "in"), licence="CC0-1.0"),)))
    report = filter_corpus(recipe, "0" * 16, store.place("filtered"), executor="serial")
    assert (report.seen, report.kept) == (3, 0)
    assert commit.read_rows(store.place("filtered"), keep=False).num_rows == 3
    assert "0 rows kept, 3 rejected" in verify_run(store.place("filtered"))


def test_the_endpoint_may_stand_in_the_environment(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.port}")
    Folder("s3://mill/environment?region=us-east-1").publish("a", b"1")
    assert Folder(store.place("environment")).read("a") == b"1"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://none/run?{endpoint}", "s3://none/run/a: there is no such bucket; create it or name another"),
        ("s3://name:secret@mill/x?endpoint=1", "s3://mill/x: is no folder and no address that can be opened"),
        ("s3://mill/x?endpoint_override=127.0.0.1:1&scheme=http", "s3://mill/x/a: cannot be reached; check"),
        (
            "gs://anonymous@mill/x?scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1",
            "gs://mill/x/a: cannot be reached; check",
        ),
    ],
)
def test_unusable_places_are_one_sentence(store: S3Server, place: str, message: str) -> None:
    endpoint = f"endpoint_override=127.0.0.1:{store.port}&scheme=http"
    with pytest.raises(BadInput) as raised:
        Folder(place.format(endpoint=endpoint)).publish("a", b"")
    assert str(raised.value).startswith(message)
    assert "secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_missing_credentials_are_one_sentence(store: S3Server, folder: Path) -> None:
    store.refuse = lambda method, path, query: True  # as S3 answers whoever does not sign
    with pytest.raises(BadInput, match=r"run\.json: may not be read or written .* set AWS_ACCESS_KEY_ID"):
        run(folder, store.place("private"))
