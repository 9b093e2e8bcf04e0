"""The page in a real browser, opened from the file system: nothing requested, no error, all drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, look, needs_browser, printed, settle, show
from report_runs import make_run
from report_statistics import with_statistics

from pipeline.report import ReportData, write_report
from pipeline.report.examples import Example

pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `dev`)")
pytestmark = needs_browser
PRINT_WIDTH = 680  # A4 less its margins, in CSS pixels
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "devtools:")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with everything in it."""
    path = tmp_path_factory.mktemp("whole") / "report.html"
    write_report(with_statistics(make_run()), path)
    return path


@pytest.fixture
def opened(browser: Any, whole: Path, tmp_path: Path) -> Callable[..., Any]:
    """Open the page of a run, or the whole one; `again`: look at that as another test left it, if it is still open."""

    def open_page(
        run: ReportData | None = None, *, width: int = 1400, scheme: str = "light", again: bool = False
    ) -> Any:
        path = whole if run is None else tmp_path / "report.html"
        if again and browser.current_url == path.as_uri():
            look(browser, width=width, scheme=scheme)
            settle(browser)
            return browser
        if run is not None:
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
    driver = opened()
    assert len(drawn_traces(driver)) == 5
    assert min(drawn_traces(driver)) > 0
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('.panel svg, .drawing > svg')].map(n => n.getBoundingClientRect())"
        ".map(box => [box.width, box.height])"
    )
    assert len(sizes) == 9 + 1 + 1  # arms x seeds, the burn-down, the seeds not collapsed
    assert min(side for size in sizes for side in size) > 80
    word = driver.find_element("css selector", "#verdict .word")
    assert (word.text, word.is_displayed()) == ("Collapses", True)
    assert driver.get_log("browser") == []
    urls = requested(driver)
    assert any(url.startswith("file:") for url in urls), "the log must hold the page itself"
    assert [url for url in urls if not url.startswith(LOCAL)] == []


def test_headings_go_down_by_one_and_tables_and_figures_have_words(opened: Callable[..., Any]) -> None:
    driver = opened(again=True)
    levels = driver.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(n => Number(n.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    bare = "return [...document.querySelectorAll('th:not([scope])')].length"
    assert driver.execute_script(bare) == 0
    words = driver.execute_script(
        "return [...document.querySelectorAll('[role=img]')].map(n => n.getAttribute('aria-label'))"
    )
    assert len(words) == 5 + 11
    assert all(any(c.isdigit() for c in text) for text in words)  # they say the numbers, not a title alone


def test_every_control_is_reached_by_tab_and_shows_it(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = opened(again=True)
    wanted = driver.execute_script("return document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    reached = []
    for _ in range(wanted + 5):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        name, outline, left = driver.execute_script(
            "const n = document.activeElement, s = getComputedStyle(n);"
            "return [n.tagName + ' ' + n.className, s.outlineStyle + ' ' + s.outlineWidth,"
            "n.getBoundingClientRect().top >= 0]"
        )
        if name.startswith("BODY"):
            break
        reached.append(name)
        assert outline == "solid 2px", name
        assert left, f"{name} is focused out of sight"
    shown = driver.execute_script(
        "return [...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')]"
        ".filter(n => n.checkVisibility()).map(n => n.tagName)"
    )
    assert [name.split()[0] for name in reached] == shown
    assert reached[0] == "A skip"


def test_figures_follow_the_colour_scheme(opened: Callable[..., Any]) -> None:
    ink = (
        "return [getComputedStyle(document.querySelector('.xtick text')).fill,"
        "getComputedStyle(document.querySelector('.panel .tick')).fill,"
        "getComputedStyle(document.querySelector('.panels:nth-of-type(2) .full')).fill,"
        "getComputedStyle(document.body).backgroundColor]"
    )
    light, dark = (opened(scheme=scheme, again=True).execute_script(ink) for scheme in ("light", "dark"))
    assert [one != other for one, other in zip(light, dark, strict=True)] == [True, True, True, True]


def test_page_prints_with_its_figures(opened: Callable[..., Any]) -> None:
    driver = opened(again=True)
    metrics = {"width": PRINT_WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= PRINT_WIDTH
    assert driver.find_element("css selector", "#verdict details li").is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert driver.get_log("browser") == []


def test_the_pdf_holds_all_that_matters_on_a_few_pages(opened: Callable[..., Any]) -> None:
    pypdfium2 = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (extra `dev`)")
    pdf = printed(opened(scheme="dark", again=True))
    with pypdfium2.PdfDocument(pdf) as document:
        pages = [page.get_textpage().get_text_bounded() for page in document]
        first = document[0].render(scale=0.5).to_pil().convert("RGB")
    assert 1 < len(pages) < 20
    text = " ".join(" ".join(pages).split())
    for said in (
        "Collapses",
        "Refusal collapses: arm compliance",
        "Why: the reasons",
        "Every arm and seed",
        "censored: not reached by step 32",
        "Kaplan and Meier",
        "kept for measuring",
        "not tested",
        "An attacker with the weights",
        "holdfast stages=[reproduce]",
        "The ledger, in the order",  # within details, opened for print
    ):
        assert said in text, said
    assert first.getpixel((2, 2)) == (255, 255, 255)  # light, also where the reader prefers dark


def test_an_inline_script_that_is_not_ours_is_refused(opened: Callable[..., Any]) -> None:
    driver = opened(again=True)
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.taken = 1';document.body.append(s)"
    )
    assert driver.execute_script("return window.taken") is None


def test_script_in_a_name_does_not_run(opened: Callable[..., Any]) -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    nasty = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    run.plan["subject"]["name"] = nasty
    driver = opened(run)
    assert driver.find_element("css selector", "h1").text == nasty
    assert driver.title != "taken"
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_spills_over_the_page_and_all_text_has_contrast(
    opened: Callable[..., Any], width: int, scheme: str
) -> None:
    driver = opened(width=width, scheme=scheme)
    settle(driver)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].filter(n => "
        "n.querySelector('.main-svg').getBoundingClientRect().width > n.clientWidth + 1).length"
    )
    assert wide == 0
    assert driver.execute_script(SMALLEST_TEXT, ".panel svg, .drawing > svg") >= 10
    settle(driver)
    seen, low = driver.execute_script(LOW_CONTRAST)
    assert seen > 800
    assert low == []
    driver.execute_script("document.querySelector('h1').style.color = '#888'")
    assert len(driver.execute_script(LOW_CONTRAST)[1]) == (1 if scheme == "light" else 0), "the check must find it"


# The least size in CSS pixels, as it is seen, of the texts within drawings that a selector finds.
SMALLEST_TEXT = """
return Math.min(...[...document.querySelectorAll(arguments[0])].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize) * scale);
}))
"""
# Texts whose contrast with what lies behind them is below 4.5 (WCAG 2.2, 1.4.3), with that contrast.
LOW_CONTRAST = """
const part = c => { c /= 255; return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
const behind = node => {
  for (let n = node; n; n = n.parentElement) {
    const c = parse(getComputedStyle(n).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const found = [];
let seen = 0;
const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !node.getClientRects().length) continue;
  const style = getComputedStyle(node);
  const ink = parse(node instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  seen += 1;
  if (ratio < 4.5) found.push([walker.currentNode.textContent.trim().slice(0, 40), ratio]);
}
return [seen, found];
"""


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
