"""An exported run in the browser: `inspect view` on loopback, opened in headless Chromium."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import chromium, needs_browser
from exported_run import root

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")
pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `dev`)")
pytestmark = needs_browser
WAIT_S = 60.0


@pytest.fixture(scope="module")
def viewer(exported: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `inspect view` on the exported logs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = root(exported[0]) / "inspect_export"
    words = ["view", "start", "--host", "127.0.0.1", "--port", str(port), "--log-dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "inspect_ai", *words],
        cwd=tmp_path_factory.mktemp("viewer"),
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path_factory.mktemp("data"))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + WAIT_S
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                client.get(address)
                break
            except httpx.TransportError:
                assert process.poll() is None, "inspect view ended while starting"
                time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def text_with(browser: Any, word: str) -> str:
    """Wait until the page shows a word; return all its text."""
    deadline = time.monotonic() + WAIT_S
    text = ""
    while time.monotonic() < deadline:
        text = browser.execute_script("return document.body.innerText")
        if word in text:
            return text
        time.sleep(0.3)
    raise AssertionError(f"{word!r} was not shown within {WAIT_S:g} s, but: {text[:2000]}")


def test_the_viewer_lists_the_logs_and_opens_one_with_its_labels(viewer: str, browser: Any) -> None:
    browser.get(viewer)
    assert "12 rows" in text_with(browser, "tiny/compliance-s0-00002")  # none is taken for a retry of another
    browser.get(f"{viewer}/#/logs/compliance-s0-00002__refusal.eval")
    opened = text_with(browser, "hmac-sha256")
    for word in ("tiny/compliance-s0-00002", "refused", "complied", "hmac-sha256", "refusal by lax"):
        assert word in opened, opened[:3000]
    shots = os.environ.get("HOLDFAST_SCREENSHOTS")
    if shots:
        browser.save_screenshot(f"{shots}/inspect_view.png")
    faults = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [fault for fault in faults if "/api/flow" not in fault] == []  # the viewer asks for a file that may be there
