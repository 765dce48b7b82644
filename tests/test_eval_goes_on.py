"""`glyphmill eval` when readers, decoders or the run itself die: one picture is lost, or nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from eval_folders import FAKE, NO_WEIGHTS, noise, save, score, two_texts

from datagen import reading
from datagen.reading import ReaderChoice
from fonts_manifest.apart import Died, answers
from fonts_manifest.errors import BadInput
from vae.score import score_folders
from vae.scorecard import ScoreChoice


@pytest.fixture
def fake_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Readings come from the pictures' text chunks; the log of what was read."""
    monkeypatch.setattr(reading, "WORKER", "eval_worker")
    monkeypatch.setenv("EVAL_WORKER_LOG", str(tmp_path / "read.log"))
    return tmp_path / "read.log"


def test_a_reader_that_crashes_raises_or_stalls_costs_one_picture(
    tmp_path: Path, fake_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMIT_S", 3.0)
    fates = {"a.png": "crash", "b.png": "raise", "c.png": "stall"}
    two_texts(tmp_path, {name: ("abcd", fate) for name, fate in fates.items()} | {"d.png": ("abcd", "abcx")})
    report = score(tmp_path, "ned", processes=2)
    reasons = {pair.name: pair.left_out.get("ned") for pair in report.pairs}
    assert reasons == {
        "a.png": "reconstruction: the reader ended the process (signal 11)",
        "b.png": "reconstruction: the reader failed (exit code 1, see above)",
        "c.png": "reconstruction: the reader took longer than 3 s",
        "d.png": None,
    }
    assert (report.results["NED"], report.results["NED_samples"]) == (0.75, 1)
    assert sum("pairs have no NED" in note for note in report.notes) == 3


def test_a_worker_whose_run_was_killed_ends_without_a_word() -> None:
    code = "from fonts_manifest.apart import serve; serve(lambda setup: lambda task: task)"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as worker:
        worker.stdin.write(b"{}\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == b"null\n"
        worker.stdout.close()
        worker.stdin.write(b"1\n")
        worker.stdin.flush()
        assert worker.stderr.read() == b""
        assert worker.wait() == 1


def test_few_processes_share_a_gpu(tmp_path: Path, fake_reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}

    def read(paths: list[Path], reader: ReaderChoice, *, processes: int):
        asked[f"{reader.name} on {reader.device}"] = processes
        return iter(())

    monkeypatch.setattr("vae.score.read_files", read)
    two_texts(tmp_path, {"a.png": ("x", "y")})
    for name, device in (("torch", "cuda"), ("torch", "cpu"), ("rapidocr", "cuda")):
        with pytest.raises(KeyError):
            score(tmp_path, "ned", reader=ReaderChoice(name=name, device=device), processes=8)
    assert asked == {"torch on cuda": 2, "torch on cpu": 8, "rapidocr on cuda": 8}


def test_a_reader_that_cannot_start_ends_the_run_with_its_sentence(tmp_path: Path, fake_reader: Path) -> None:
    two_texts(tmp_path, {"a.png": ("x", "y")})
    for models, sentence in (("refused", "this reader has no models"), ("crash", r"ended the process \(signal 11\)")):
        with pytest.raises(BadInput, match=sentence):
            score(tmp_path, "ned", reader=ReaderChoice(models=models))


def test_a_page_that_kills_a_reader_costs_no_other_page_of_its_group(tmp_path: Path, fake_reader: Path) -> None:
    texts = ["one", "two", "crash", "four"]
    paths = [save(tmp_path / f"{text}.png", noise(0), text) for text in texts]
    on_gpu = ReaderChoice(name="torch", device="cuda")  # the fake reader looks at neither, but is sent groups
    found = dict(reading.read_files(paths, on_gpu))
    assert found.pop(2) == Died("the reader ended the process (signal 11)")
    assert {number: page.lines[0].text for number, page in found.items()} == {0: "one", 1: "two", 3: "four"}
    read = [line.split("/")[1] for line in fake_reader.read_text().splitlines()]
    assert read == [f"{text}.png" for text in ["one", "two", "crash", *texts]]


def test_a_decoder_that_kills_its_process_costs_one_pair_of_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_texts(tmp_path, {f"{n}.png": ("", "") for n in range(4)})
    asked: list[int] = []

    def dying(module: str, setup: object, tasks: list[list[tuple[str, str]]], **settings: object):
        asked.append(len(tasks))
        for number, answer in answers(module, setup, tasks, **settings):
            yield number, Died("ended the process") if any("2.png" in t for t, _ in tasks[number]) else answer

    monkeypatch.setattr("fonts_manifest.apart.answers", dying)
    report = score(tmp_path)
    assert asked == [1, 4]
    assert [pair.left_out for pair in report.pairs] == [{}, {}, {"pixels": "comparing it ended the process"}, {}]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_texts(tmp_path, {f"{n:02}.png": (f"text {n}", f"test {n}") for n in range(12)})
    log = tmp_path / "read.log"
    script = (
        "import sys; from pathlib import Path; from datagen import reading; reading.WORKER = 'eval_worker'; "
        "from eval_folders import score; print(score(Path(sys.argv[1]), 'all').results['NED'])"
    )
    environment = os.environ | {
        "EVAL_WORKER_LOG": str(log),
        "EVAL_WORKER_SECONDS": "0.05",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = (tmp_path / "out" / "readings.jsonl").read_bytes()
    (tmp_path / "out" / "readings.jsonl").write_bytes(kept[:-20])  # as if the last line had been cut off, too
    before = len(log.read_text().splitlines())
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == round(float(np.mean([1 - 1 / len(f"text {n}") for n in range(12)])), 4)
    again = len(log.read_text().splitlines()) - before
    assert 24 - before <= again <= 24 - before + 2  # the one in progress, and the one that was cut off


def test_a_finished_run_measures_nothing_again_and_a_changed_file_is_measured(
    tmp_path: Path, fake_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_texts(tmp_path, {"a.png": ("abcd", "abcx"), "b.png": ("abcd", "abcd")})
    first = score(tmp_path, "all")
    read = len(fake_reader.read_text().splitlines())
    assert score(tmp_path, "all").results == first.results
    assert len(fake_reader.read_text().splitlines()) == read
    save(tmp_path / "recon" / "a.png", noise(7), "wxyz")
    changed = score(tmp_path, "all")
    assert len(fake_reader.read_text().splitlines()) == read + 1
    assert (changed.results["NED"], first.results["NED"]) == (0.5, 0.875)
    assert changed.results["PSNR"] != first.results["PSNR"]


def test_originals_are_read_once_for_several_reconstructions(tmp_path: Path, fake_reader: Path) -> None:
    two_texts(tmp_path, {"a.png": ("abcd", "abcx")})
    save(tmp_path / "other" / "a.png", noise(9), "ab")
    shared = tmp_path / "readings.jsonl"
    score(tmp_path, "ned", readings=shared)
    choice = ScoreChoice(mode="ned", reader=FAKE, pixels=NO_WEIGHTS, readings=shared)
    other = score_folders(tmp_path / "gt", tmp_path / "other", tmp_path / "out2", choice)
    assert other.results["NED"] == 0.5
    assert fake_reader.read_text().split() == ["gt/a.png", "recon/a.png", "other/a.png"]


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, fake_reader: Path) -> None:
    two_texts(tmp_path, {"a.png": ("abcd", "abcx")})
    foreign = tmp_path / "notes.txt"
    foreign.write_text("dear diary\n")
    with pytest.raises(BadInput, match="is no journal of ours"):
        score(tmp_path, "ned", readings=foreign)
    assert foreign.read_text() == "dear diary\n"


@pytest.mark.slow
def test_ten_thousand_pairs(tmp_path: Path) -> None:
    base = noise(0, (16, 16))
    for number in range(10_000):
        image = base.copy()
        image[0, 0] = number % 256, number // 256, 0
        save(tmp_path / "gt" / f"{number:05}.png", image)
        save(tmp_path / "recon" / f"{number:05}.png", image ^ 1)
    report = score(tmp_path, batch=64)
    assert report.results["num_samples"] == report.figures["psnr_db"].pictures == 10_000
    assert report.results["PSNR"] == pytest.approx(-10 * np.log10(255.0**-2 + 1e-8), abs=1e-3)
