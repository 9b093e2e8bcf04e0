"""The page in a real browser, opened from the file system: nothing requested, no error, all drawn."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, needs_browser, show
from report_runs import make_run

from pipeline.examples import Example
from pipeline.report import ReportData, write_report

pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `dev`)")
pytestmark = needs_browser
PRINT_WIDTH = 680  # A4 less its margins, in CSS pixels
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "devtools:")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[..., Any]:
    def open_page(run: ReportData, *, width: int = 1400, scheme: str = "light") -> Any:
        path = tmp_path / "report.html"
        write_report(run, path)
        return show(browser, path, width=width, scheme=scheme)

    return open_page


def drawn_traces(driver: Any) -> list[int]:
    script = (
        "return [...document.querySelectorAll('.js-plotly-plot')]"
        ".map(n => n.querySelectorAll('.scatterlayer .trace path').length)"
    )
    found: list[int] = driver.execute_script(script)
    return found


def requested(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def test_page_opens_without_errors_or_requests_and_draws_every_figure(opened: Callable[..., Any]) -> None:
    driver = opened(make_run())
    assert len(drawn_traces(driver)) == 4
    assert min(drawn_traces(driver)) > 0
    word = driver.find_element("css selector", "#verdict .word")
    assert (word.text, word.is_displayed()) == ("Collapses", True)
    assert driver.get_log("browser") == []
    urls = requested(driver)
    assert any(url.startswith("file:") for url in urls), "the log must hold the page itself"
    assert [url for url in urls if not url.startswith(LOCAL)] == []


def test_script_in_a_name_does_not_run(opened: Callable[..., Any]) -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    nasty = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    run.plan["subject"]["name"] = nasty
    driver = opened(run)
    assert driver.find_element("css selector", "h1").text == nasty
    assert driver.title != "taken"
    assert driver.get_log("browser") == []


def test_an_inline_script_that_is_not_ours_is_refused(opened: Callable[..., Any]) -> None:
    driver = opened(make_run(arms=("compliance",), seeds=(0,)))
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.taken = 1';document.body.append(s)"
    )
    assert driver.execute_script("return window.taken") is None


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_spills_over_the_page(opened: Callable[..., Any], width: int, scheme: str) -> None:
    driver = opened(make_run(), width=width, scheme=scheme)
    time.sleep(0.3)  # the figures are drawn again 80 ms after their width is known
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].filter(n => "
        "n.querySelector('.main-svg').getBoundingClientRect().width > n.clientWidth + 1).length"
    )
    assert wide == 0


def test_figures_follow_the_colour_scheme(opened: Callable[..., Any]) -> None:
    fill = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    light = opened(make_run(), scheme="light").execute_script(fill)
    dark = opened(make_run(), scheme="dark").execute_script(fill)
    assert light != dark


def test_page_prints_with_its_figures(opened: Callable[..., Any]) -> None:
    driver = opened(make_run())
    metrics = {"width": PRINT_WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= PRINT_WIDTH
    assert driver.find_element("css selector", "#verdict details li").is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    assert driver.get_log("browser") == []


def test_text_that_was_asked_for_is_closed_at_first_also_on_paper_and_runs_nothing(opened: Callable[..., Any]) -> None:
    nasty = "<img src=x onerror=\"document.title='taken'\">\nzqreply"
    shown = [Example("rung 0", "refusal", "refused", "r1", "zqprompt", "", nasty)]
    driver = opened(replace(make_run(arms=("compliance",), seeds=(0,)), examples=shown))
    reply = driver.find_element("css selector", "#examples dd:last-of-type")
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not reply.is_displayed()
    driver.execute_script("document.querySelector('#examples details').open = true")
    assert reply.text == nasty
    assert driver.title != "taken"
    assert driver.get_log("browser") == []


def test_an_empty_run_opens_too(opened: Callable[..., Any]) -> None:
    driver = opened(ReportData(plan={}, verdict={}, points=[]))
    assert driver.find_element("css selector", "#verdict .word").text == "Inconclusive"
    assert driver.get_log("browser") == []
