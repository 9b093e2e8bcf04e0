"""Many arms and long names in a real browser: nothing is cut, nothing makes the page scroll sideways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, look, needs_browser, printed, settle, show
from many_arms import many, named

from pipeline.report import write_report

pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `dev`)")
pytestmark = needs_browser
ARMS = 12
LONG = ["an_arm_named_with_fifty_four_letters_and_no_space_in_it", "an arm with spaces " + "and many words " * 6]
PLOTS = """
return [...document.querySelectorAll('.plot')].map(n => {
  const box = n.querySelector('.nsewdrag').getBoundingClientRect(), key = n.parentNode.querySelector('p.legend');
  return [n.dataset.figure, box.height, key.getBoundingClientRect().bottom <= n.getBoundingClientRect().top + 1,
          [...key.children].filter(k => k.checkVisibility()).length, key.scrollWidth <= key.clientWidth];
})
"""
CUT = """
const box = document.querySelector('.prices').parentNode, end = box.getBoundingClientRect().right + 1;
return [...box.querySelectorAll('th, td')].filter(n => {
  const range = document.createRange(); range.selectNodeContents(n);
  return range.getBoundingClientRect().right > Math.min(end, n.getBoundingClientRect().right + 1);
}).map(n => n.textContent)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Open the page of a run with many arms, or of one whose names are long."""
    folder = tmp_path_factory.mktemp("pages")
    write_report(many(ARMS), folder / "many.html")
    run = named(LONG, shape="compliance")
    run.plan["subject"]["name"] = f"{LONG[1]} {LONG[0]}"
    write_report(run, folder / "long.html")
    with chromium(tmp_path_factory.mktemp("profile")) as driver:

        def open_page(name: str, width: int = 1280) -> Any:
            page = Path(folder / f"{name}.html")
            if driver.current_url != page.as_uri():
                show(driver, page, width=width, scheme="light")
            look(driver, width=width, scheme="light")
            settle(driver)
            return driver

        yield open_page


@pytest.mark.parametrize("width", [1920, 1280, 390])
def test_twelve_arms_stand_in_every_legend_and_leave_the_plot_its_height(
    opened: Callable[..., Any], width: int
) -> None:
    driver = opened("many", width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    plots = driver.execute_script(PLOTS)
    assert len(plots) == 5
    for name, height, apart, keys, whole in plots:
        assert height >= 240, name
        assert (apart, whole) == (True, True), name
        assert keys == ARMS + (name != "path"), name  # and the ring's
    if width > 1000:
        assert driver.execute_script(CUT) == []


def test_twelve_arms_are_whole_on_paper(opened: Callable[..., Any]) -> None:
    pypdfium2 = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (extra `dev`)")
    pdf = printed(opened("many"))
    with pypdfium2.PdfDocument(pdf) as document:
        pages = []
        for page in document:
            width, height = page.get_size()
            pages.append(page.get_textpage().get_text_bounded(left=0, bottom=0, right=width, top=height))
    text = " ".join(" ".join(pages).split())
    legends = text[text.index("What a dose of fine-tuning does") : text.index("Where ability and refusal part")]
    prices = text[text.index("The price of collapse") :]
    for n in range(ARMS):
        assert legends.count(f"arm {n} ") >= 5, n
        if n % 3 < 2:  # these collapse
            assert f"arm {n}" in prices
    assert prices.count("over seeds") == 8


def test_long_names_do_not_make_the_page_scroll_sideways(opened: Callable[..., Any]) -> None:
    driver = opened("long", 390)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    column = (
        "return [...document.querySelectorAll('table:not(.scope) tbody th:not([colspan])')]"
        ".map(n => n.getBoundingClientRect().width)"
    )
    assert max(driver.execute_script(column)) < 200  # else it hides the numbers beside it


def test_a_table_that_goes_on_has_a_shadow_at_its_edge(opened: Callable[..., Any]) -> None:
    driver = opened("many", 390)
    styles = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(n => n.scrollWidth > n.clientWidth)"
        ".map(n => getComputedStyle(n)).map(s => [s.backgroundAttachment, s.backgroundImage])"
    )
    assert len(styles) > 3
    assert {attached for attached, _ in styles} == {"local, local, scroll, scroll"}
    assert all(image.count("linear-gradient") == 4 for _, image in styles)
