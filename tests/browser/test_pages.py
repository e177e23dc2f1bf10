"""The pages in a real browser, on a phone above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.pages import PAGES
from tests.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser

PHONE = 390
LEGIBLE = 10  # pixels a letter is high on the screen


@pytest.mark.parametrize("width", [1280, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(opened: Callable[..., Opened], name: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(opened(name, scheme=scheme, width=width).page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:2]) for each in violations] == []


@pytest.mark.parametrize("name", [*PAGES, *SAMPLES, "deep"])
def test_nothing_sticks_out_or_is_cut_off_on_a_phone(opened: Callable[..., Opened], name: str) -> None:
    found = opened(name, width=PHONE)
    assert found.tells("document.documentElement.scrollWidth") <= PHONE
    beyond = found.tells(
        """[...document.querySelectorAll("body *")]
            .filter(each => !each.closest(".scroll, .skip, .plot") && each.getClientRects().length)
            .filter(each => each.getBoundingClientRect().right > innerWidth || each.getBoundingClientRect().left < 0)
            .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    hidden = found.tells(
        """[...document.querySelectorAll("body *")]
            .filter(each => getComputedStyle(each).overflowX !== "visible")
            .filter(each => !each.matches(".scroll, svg, .away, .word"))
            .filter(each => !each.closest(".grid"))  // names there end in dots, and a row shows them whole
            .filter(each => each.scrollWidth > each.clientWidth)
            .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert hidden == []
    overlapped = found.tells(
        """[...document.querySelectorAll("td, th")].filter(each => !each.closest(".grid"))
            .filter(each => each.scrollWidth > each.clientWidth + 1)
            .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert overlapped == []


@pytest.mark.parametrize("name", ["training", "train-parity"])
def test_what_is_written_in_a_chart_can_be_read_on_a_phone(opened: Callable[..., Opened], name: str) -> None:
    found = opened(name, width=PHONE)
    heights = found.tells(
        """[...document.querySelectorAll("figure svg text")].map(each =>
            parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a)"""
    )
    assert heights
    assert min(heights) >= LEGIBLE


def test_labels_of_a_chart_do_not_overlap_on_a_phone(opened: Callable[..., Opened]) -> None:
    found = opened("training", width=PHONE)
    overlapping = found.tells(
        """[...document.querySelectorAll("figure svg")].flatMap(chart => {
            const texts = [...chart.querySelectorAll("text")];
            const boxes = texts.map(each => [each.textContent, each.getBoundingClientRect()]);
            const meet = (low, high, low2, high2) => low < high2 && low2 < high;
            return boxes.flatMap(([text, a], k) => boxes.slice(k + 1)
                .filter(([, b]) => meet(a.left, a.right, b.left, b.right))
                .filter(([, b]) => meet(a.top + 3, a.bottom, b.top + 3, b.bottom))
                .map(([other]) => [text, other]));
        })"""
    )
    assert overlapping == []


TAME = [name for name in (*PAGES, *SAMPLES) if name != "hostile"]  # whose comparison is a line of markup


@pytest.mark.parametrize("name", TAME)
def test_tables_that_scroll_on_a_phone_show_it_and_those_that_are_read_first_fit(
    opened: Callable[..., Opened], name: str
) -> None:
    found = opened(name, width=PHONE)
    found.tells("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    # Shades follow a timeline, which moves on with the frames that are drawn.
    found.page.evaluate("() => new Promise(then => requestAnimationFrame(() => requestAnimationFrame(then)))")
    without = found.tells(
        """[...document.querySelectorAll(".scroll")].filter(each => each.scrollWidth > each.clientWidth + 1)
            .filter(each => each.querySelector(".fits")
                || getComputedStyle(each.closest(".edge") ?? each, "::after").opacity !== "1")
            .map(each => each.ariaLabel)"""
    )
    assert without == []


STAGES = "document.querySelector('[aria-label^=\"Stages\"]')"
SHADE = (
    f"Number(getComputedStyle({STAGES}, '::after').opacity)"  # 1 where there is more behind the edge, else 0
)


def test_a_table_that_scrolls_shows_that_there_is_more_until_its_end(opened: Callable[..., Opened]) -> None:
    phone = opened("preprocess", width=PHONE)
    assert phone.tells(SHADE) == 1
    phone.tells(f"{STAGES}.scrollLeft = {STAGES}.scrollWidth")
    phone.page.wait_for_function(f"{SHADE} === 0")
    assert opened("preprocess").tells(SHADE) == 0  # nothing is hidden on a wide screen
