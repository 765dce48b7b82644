"""Web pages in a real headless Chromium, served from loopback: screens, provenance, and what does not load."""

import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.codec import decode_png
from datagen.commit import read_rows
from datagen.criteria import ingest_recipe
from datagen.filter import filter_corpus
from datagen.storage import Folder
from datagen.web import WebConfig, capture_pages, find_browser
from fonts_manifest.errors import BadInput

if importlib.util.find_spec("playwright") is None:
    pytest.skip("Playwright is not installed (glyphmill[web])", allow_module_level=True)

PAGES = {
    "/robots.txt": b"User-agent: *\nDisallow: /private\n",
    "/short.html": b"<!doctype html><title>A short page</title><body style='margin:0;background:#fe0000'>",
    "/long.html": b"<!doctype html><meta charset=utf-8><title>\xe9\x95\xbf</title><body style='margin:0'>"
    b"<div style='height:600px;background:#00ff00'></div><div style='height:480px;background:#0000ff'></div>",
    "/script.html": b"<body style='margin:0'>"
    b"<script>setTimeout(() => document.body.style.background = '#123456', 50)</script>",
    "/files.html": b"<body style='margin:0;background:#fff'><img id=i src='file:///etc/passwd'>"
    b"<iframe src='file:///etc/passwd'></iframe>",
    "/private/page.html": b"<body>secret",
}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGES.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "text/plain" if self.path.endswith(".txt") else "text/html")
        self.end_headers()
        self.wfile.write(body or b"not here")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    if find_browser(WebConfig()) is None:
        pytest.skip("no Chromium on this machine: `playwright install chromium` or the system's package brings one")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pages_become_screens_with_provenance_and_stay_what_they_were(site, tmp_path, monkeypatch):
    places = [f"{site}/{name}" for name in ("short.html", "long.html", "script.html", "gone.html", "private/page.html")]
    recipe = ingest_recipe(places, "CC-BY-4.0", ["web.width_px=400", "web.height_px=480", "web.settle_ms=300"])
    report = filter_corpus(recipe, "0" * 16, str(tmp_path / "a"), executor="serial")
    rows = read_rows(tmp_path / "a").to_pylist()
    found = {row["origin"].removeprefix(site): row for row in rows}
    assert report.reasons == {"unreachable_page": 2}
    assert found["/gone.html"]["detail"] == "HTTP 404"
    assert found["/private/page.html"]["detail"] == "robots.txt forbids it"
    assert found["/long.html#screen=1"]["caption"] == "长"
    assert {row["licence"] for row in rows} == {"CC-BY-4.0"}
    colours = {
        "/short.html#screen=1": [(254, 0, 0)],
        "/long.html#screen=1": [(0, 255, 0)],
        "/long.html#screen=2": [(0, 255, 0), (0, 0, 255)],
        "/script.html#screen=1": [(0x12, 0x34, 0x56)],
    }
    for name, expected in colours.items():
        image = decode_png(found[name]["image"]["bytes"])
        assert image.shape == (480, 400, 3)
        assert [tuple(image[0, 5]), tuple(image[-1, 5])][: len(expected)] == expected, name
    assert found["/long.html#screen=3"]["height"] == 120

    # Taken once: the same run again, from what lies in _captures, writes the same bytes without a browser.
    (tmp_path / "b" / "_captures").mkdir(parents=True)
    for path in (tmp_path / "a" / "_captures").iterdir():
        (tmp_path / "b" / "_captures" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("datagen.web._browser", None)
    filter_corpus(recipe, "0" * 16, str(tmp_path / "b"), executor="serial")
    for path in (tmp_path / "a" / "data").iterdir():
        assert (tmp_path / "b" / "data" / path.name).read_bytes() == path.read_bytes()


def test_a_page_sees_no_files_of_this_machine(site, tmp_path):
    (screen,) = capture_pages([f"{site}/files.html"], WebConfig(width_px=400, height_px=480), Folder(str(tmp_path)))
    image = decode_png((tmp_path / screen.path).read_bytes())
    assert not (image[:, :, 0] < 60)[200:].any()  # no line of /etc/passwd


def test_screens_follow_the_scale_and_the_limit(site, tmp_path):
    config = WebConfig(width_px=400, height_px=480, scale=2, max_screens=1)
    (screen,) = capture_pages([f"{site}/long.html"], config, Folder(str(tmp_path)))
    assert decode_png((tmp_path / screen.path).read_bytes()).shape == (960, 800, 3)


def test_a_server_that_is_not_there_is_counted(site, tmp_path):
    (screen,) = capture_pages(["http://127.0.0.1:9/x"], WebConfig(timeout_s=5), Folder(str(tmp_path)))
    assert screen.problem == "unreachable_page"
    assert screen.detail


def test_no_browser_is_one_sentence(tmp_path: Path):
    config = WebConfig(browser=str(tmp_path / "none"))
    with pytest.raises(BadInput, match=r"web pages: no Chromium at .*none; run `playwright install chromium`"):
        capture_pages(["http://127.0.0.1:9/x"], config, Folder(str(tmp_path)))
    assert not list(tmp_path.iterdir())
