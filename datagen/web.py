"""Web pages as a browser draws them: addresses -> lossless screens, kept beside the run so that it can be repeated.

The one place that knows Playwright, and the only part of ingesting that uses the network besides buckets.
"""

import datetime
import hashlib
import json
import os
import shutil
import urllib.parse
import urllib.robotparser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from datagen.decode import Problem
from datagen.storage import Folder
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput

CAPTURES = "_captures"
"""Folder of a run that holds the screens and what is known of each page."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ALLOWED = ("http", "https", "data", "blob", "about")


class WebConfig(Config):
    """How web pages become pictures."""

    width_px: int = Field(default=1280, ge=320, le=3840)
    """Of the window, in CSS pixels."""
    height_px: int = Field(default=960, ge=240, le=2160)
    """Of one screen; longer pages are cut into screens from the top on."""
    scale: float = Field(default=1.0, ge=0.5, le=3.0)
    """Picture pixels a CSS pixel."""
    max_screens: int = Field(default=6, ge=1, le=100)
    """Screens taken of one page, from its top on."""
    settle_ms: int = Field(default=500, ge=0, le=60_000)
    """Waited after a page has loaded, for scripts that fill it."""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    """After which a page that does not load is left out."""
    javascript: bool = True
    """Whether scripts of the page run."""
    obey_robots: bool = True
    """Whether pages that their site's robots.txt forbids are left out."""
    browser: str | None = None
    """Path of a Chromium or Chrome; unless given, Playwright's own or the first on the search path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """One screen of a page, or why there is none."""

    address: str
    """As the recipe has it."""
    path: str
    """Of the PNG, inside the run folder; "" when there is none."""
    sha256: str
    title: str = ""
    number: int = 0
    problem: Problem | None = None
    detail: str = ""


def capture_pages(addresses: Sequence[str], config: WebConfig, folder: Folder) -> list[Screen]:
    """The screens of every page, taken now unless `folder` holds them from an earlier start.

    Pages change, so what was taken stays in `_captures/` and the run is a function of that. A page that does not load
    is a Screen with "unreachable_page". Raises BadInput when there is no browser.
    """
    wanted = list(dict.fromkeys(addresses))
    done = {address: _known(folder, address) for address in wanted}
    missing = [address for address in wanted if done[address] is None]
    if missing:
        with _browser(config) as browser:
            for address in missing:
                done[address] = _capture(browser, address, config, folder)
    return [screen for address in wanted for screen in done[address] or ()]


def find_browser(config: WebConfig) -> str | None:
    """Path of the Chromium that would be used; None when there is none. Raises BadInput without Playwright."""
    if config.browser is not None:
        return config.browser if Path(config.browser).is_file() else None
    with _playwright() as playwright:
        own = playwright.chromium.executable_path
    if own and Path(own).is_file():
        return str(own)
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def _playwright() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BadInput("web pages: Playwright is not installed; install glyphmill[web]") from None
    with sync_playwright() as playwright:
        yield playwright


@contextmanager
def _browser(config: WebConfig) -> Iterator[Any]:
    path = find_browser(config)
    if path is None:
        named = f" at {config.browser}" if config.browser else ""
        raise BadInput(
            f"web pages: no Chromium{named}; run `playwright install chromium`, install your system's package, or set "
            "input.web.browser"
        )
    with _playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            # Chromium's own sandbox does not work for root, as in most containers.
            chromium_sandbox=hasattr(os, "geteuid") and os.geteuid() != 0,
            args=["--force-color-profile=srgb"],
        )
        try:
            yield browser
        finally:
            browser.close()


def _stem(address: str) -> str:
    return f"{CAPTURES}/{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def _known(folder: Folder, address: str) -> list[Screen] | None:
    record = f"{_stem(address)}.json"
    if not folder.exists(record):
        return None
    return [Screen(**screen) for screen in json.loads(folder.read(record))["screens"]]


def _capture(browser: Any, address: str, config: WebConfig, folder: Folder) -> list[Screen]:
    from playwright.sync_api import Error

    context = browser.new_context(
        viewport={"width": config.width_px, "height": config.height_px},
        device_scale_factor=config.scale,
        java_script_enabled=config.javascript,
        accept_downloads=False,
        service_workers="block",
        reduced_motion="reduce",
    )
    context.set_default_timeout(config.timeout_s * 1000)
    title = final = ""
    try:
        # What a page loads comes from the web: never a file of this machine.
        context.route(
            lambda url: urllib.parse.urlsplit(url).scheme not in _ALLOWED, lambda route: route.abort("accessdenied")
        )
        if config.obey_robots and not _robots_allow(context, address):
            screens = [_failed(address, "robots.txt forbids it")]
        else:
            page = context.new_page()
            response = page.goto(address, wait_until="load")
            if response is not None and response.status >= 400:
                screens = [_failed(address, f"HTTP {response.status}")]
            else:
                page.wait_for_timeout(config.settle_ms)
                title, final = page.title()[:500], page.url
                screens = list(_screens(page, address, title, config, folder))
    except Error as error:
        screens = [_failed(address, error.message.splitlines()[0][:200])]
    finally:
        context.close()
    record = {
        "address": address,
        "final_address": final,
        "title": title,
        "captured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "browser": f"{browser.browser_type.name} {browser.version}",
        "screens": [asdict(screen) for screen in screens],
    }
    # The record comes last: what it names is complete.
    folder.publish(f"{_stem(address)}.json", json.dumps(record, ensure_ascii=False, indent=1).encode())
    return screens


def _failed(address: str, detail: str) -> Screen:
    return Screen(address=address, path="", sha256="", problem="unreachable_page", detail=detail)


def _screens(page: Any, address: str, title: str, config: WebConfig, folder: Folder) -> Iterator[Screen]:
    height = page.evaluate("Math.max(document.documentElement.scrollHeight, document.body?.scrollHeight ?? 0)")
    rows = max(1, min(config.max_screens, -(-int(height) // config.height_px)))
    for number in range(rows):
        top = number * config.height_px
        # The last screen is as high as what is left, unless that is a strip.
        clip_height = min(config.height_px, max(int(height) - top, 1) if number else config.height_px)
        if number and clip_height < config.height_px // 4:
            return
        png = page.screenshot(
            full_page=True,
            clip={"x": 0, "y": top, "width": config.width_px, "height": clip_height},
            animations="disabled",
            caret="hide",
            type="png",
        )
        path = f"{_stem(address)}-{number:02d}.png"
        folder.publish(path, png)
        yield Screen(address=address, path=path, sha256=hashlib.sha256(png).hexdigest(), title=title, number=number)


def _robots_allow(context: Any, address: str) -> bool:
    from playwright.sync_api import Error

    parts = urllib.parse.urlsplit(address)
    try:
        answer = context.request.get(urllib.parse.urlunsplit((parts.scheme, parts.netloc, "/robots.txt", "", "")))
    except Error:
        return True  # the page itself will say what is wrong
    if not answer.ok:
        return True
    rules = urllib.robotparser.RobotFileParser()
    rules.parse(answer.text()[:500_000].splitlines())
    return rules.can_fetch("glyphmill", address)
