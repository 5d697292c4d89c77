"""Writes docs/images/judge-report.png from a report: python docs/picture.py demo/report/report.html"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PICTURE = Path(__file__).parent / "images" / "judge-report.png"
_BEHIND = "#cfd6de"
_MARGIN = 24


def take(report: Path) -> Image.Image:
    """The top of a report as a desktop shows it, and its first items on a phone with a dark screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        desktop = _shot(browser, report, width=980, height=980, scheme="light")
        phone = _shot(browser, report, width=390, height=980, scheme="dark", items=True)
        browser.close()
    whole = Image.new("RGB", (desktop.width + phone.width + 3 * _MARGIN, desktop.height + 2 * _MARGIN), _BEHIND)
    whole.paste(desktop, (_MARGIN, _MARGIN))
    whole.paste(phone, (desktop.width + 2 * _MARGIN, _MARGIN))
    return whole


def _shot(browser: Browser, report: Path, *, width: int, height: int, scheme: str, items: bool = False) -> Image.Image:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(report.resolve().as_uri())
    if items:
        page.locator("#count").wait_for()
        page.locator("#list details").first.evaluate("it => { it.open = true }")
        page.locator("#count").evaluate("it => it.closest('section').scrollIntoView()")
    image = Image.open(BytesIO(page.screenshot()))
    page.close()
    return image


if __name__ == "__main__":
    take(Path(sys.argv[1])).quantize(128).save(PICTURE, optimize=True)
