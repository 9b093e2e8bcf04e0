"""Headless Chromium for the pages that people look at. Import `needs_browser` as the module's `pytestmark`."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1200"),
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Chromium and chromedriver, which are not on the path"
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Yield a Chromium that logs what its pages say and request; `profile` is an empty folder of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(driver: Any, page: Path, *, width: int, scheme: str) -> Any:
    """Open a file at a width in CSS pixels, light or dark, with empty logs; return the browser."""
    look(driver, width=width, scheme=scheme)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(page.as_uri())
    return driver


def look(driver: Any, *, width: int, scheme: str) -> None:
    """Look at a page that is open at another width, or in another light."""
    metrics = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def whole(driver: Any) -> bytes:
    """Return a picture (PNG) of the whole page, from top to bottom, once its figures are drawn."""
    settle(driver)
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"])


def printed(driver: Any) -> bytes:
    """Return the page as the PDF that the browser prints it to, on the page's own paper."""
    settle(driver)
    options = {"preferCSSPageSize": True, "printBackground": False}
    return base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", options)["data"])


def settle(driver: Any) -> None:
    """Wait until the figures are drawn for this width: they are drawn again 80 ms after it is known."""
    time.sleep(0.4)
