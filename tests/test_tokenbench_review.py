"""The human inspection of a benchmark: what is decided is applied, holds, and can do no harm."""

import json
import re
import shutil
from pathlib import Path

import pytest
from benchmark_pages import LONG, RECIPE, Scribe, decide, embedded

from fonts_manifest.errors import BadInput
from vae.review import apply_review, write_review
from vae.tokenbench import assemble, build, read_candidates


def test_decisions_are_applied_and_hold(built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path) -> None:
    out, _, annotations = built
    (page,) = write_review(out)
    data = embedded(page)
    assert [(crop["file"], crop["reason"]) for crop in data["crops"]] == [
        ("en_kept_000.png", ""),
        ("en_again_000.png", "same_category_duplicate"),
        ("en_few_000.png", "too_few_characters"),
        ("en_many_000.png", "too_many_characters"),
    ]
    choice = {"en_kept_000.png": {"decision": "drop", "why": "blurred"}, "en_again_000.png": {"decision": "keep"}}
    report = apply_review(out, [decide(tmp_path / "d.json", data, choice)])
    assert (report.kept, report.reasons["human_dropped"]) == (1, 1)
    assert [path.name for path in (out / "images").iterdir()] == ["en_again_000.png"]
    by_file = {c.file: c for c in read_candidates(out)}
    assert (by_file["en_kept_000.png"].reason, by_file["en_kept_000.png"].detail) == ("human_dropped", "blurred")
    assert by_file["en_again_000.png"].detail == "kept by hand, was same_category_duplicate"
    # Built again, and the page made again: the same decisions, the same benchmark.
    build(RECIPE, pages, annotations, out)
    assert [path.name for path in (out / "images").iterdir()] == ["en_again_000.png"]
    assert embedded(write_review(out)[0])["benchmark"] == data["benchmark"]
    # A later file takes one back.
    report = apply_review(out, [decide(tmp_path / "d.json", data, {"en_kept_000.png": {"decision": "keep"}})])
    assert report.kept == 2


def test_decisions_of_another_benchmark_are_refused(built: tuple[Path, Scribe, Path], tmp_path: Path) -> None:
    out, _, _ = built
    data = embedded(write_review(out)[0])
    with pytest.raises(BadInput, match="another benchmark"):
        apply_review(out, [decide(tmp_path / "d.json", {"benchmark": "0" * 16}, {})])
    with pytest.raises(BadInput, match=re.escape("'../x.png' is no crop")):
        apply_review(out, [decide(tmp_path / "d.json", data, {"../x.png": {"decision": "drop"}})])
    with pytest.raises(BadInput, match="decision"):
        apply_review(out, [decide(tmp_path / "d.json", data, {"en_kept_000.png": {"decision": "burn"}})])
    with pytest.raises(BadInput, match="cannot be read"):
        apply_review(out, [tmp_path / "none.json"])


def test_text_cannot_leave_its_place_in_the_page(built: tuple[Path, Scribe, Path]) -> None:
    out, _, _ = built
    record = json.loads((out / "readings/kept.json").read_text())
    evil = "</script><script>alert(1)</script><!-- " + LONG
    record["candidates"][0]["text"] = evil
    (out / "readings/kept.json").write_text(json.dumps(record))
    assemble(out)
    (page,) = write_review(out)
    assert embedded(page)["crops"][0]["text"] == evil
    assert page.read_text().count("<script") == 2


def test_a_large_benchmark_is_inspected_in_parts(built: tuple[Path, Scribe, Path]) -> None:
    out, _, _ = built
    first, second = write_review(out, crops_a_page=3)
    assert (first.name, second.name) == ("review.html", "review-2.html")
    assert [len(embedded(page)["crops"]) for page in (first, second)] == [3, 1]
    assert embedded(first)["benchmark"] == embedded(second)["benchmark"]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # playwright's own transport
def test_keys_pressed_in_a_browser_become_decisions(built: tuple[Path, Scribe, Path], tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    out, _, _ = built
    (page_file,) = write_review(out)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(accept_downloads=True).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        # However many crops stand in the strip, it scrolls and the page does not.
        page.evaluate("for (let i = 0; i < 99; i++) strip.append(strip.firstChild.cloneNode())")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && big.clientWidth > 300")
        page.reload()
        page.keyboard.press("1")  # the only kept one: blurred
        page.keyboard.press("u")
        page.keyboard.press("d")
        page.select_option("#show", "rejected")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("k")  # "few"
        page.reload()  # decisions outlive it
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(tmp_path / "decisions.json")
        browser.close()
    assert errors == []
    saved = json.loads((tmp_path / "decisions.json").read_text())
    assert saved["decisions"] == {"en_kept_000.png": {"decision": "drop"}, "en_few_000.png": {"decision": "keep"}}
    apply_review(out, [tmp_path / "decisions.json"])
    assert [path.name for path in (out / "images").iterdir()] == ["en_few_000.png"]
