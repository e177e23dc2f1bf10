from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from reports import wording
from reports.headline import headline
from tests import samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Dialog

    from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser

SLACK = 3  # times as long as on a machine that does nothing else
KINDS = list(samples.SAMPLES)


@pytest.mark.parametrize("name", KINDS)
def test_a_report_opens_from_the_disk_and_says_the_verdict(opened: Callable[..., Opened], name: str) -> None:
    found = opened(name)
    shown = " ".join(found.page.locator("h1").inner_text().split())
    said = " ".join(headline(wording.shown(samples.SAMPLES[name]())).split())
    assert shown.endswith(said)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("name", "scheme"),
    [*((name, scheme) for name in KINDS for scheme in ("light", "dark")), ("deep", "light")],
)
def test_axe_finds_no_violation(opened: Callable[..., Opened], name: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = opened(name, scheme=scheme, width=width)
    if found.page.locator("#table tbody tr[data-place]").count():
        found.page.locator(
            "#table tbody tr[data-place]"
        ).first.click()  # the figures of a site are part of it
    violations = Axe().run(found.page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:2]) for each in violations] == []


def test_a_culprit_is_shown_with_its_cause_and_pictures(opened: Callable[..., Opened]) -> None:
    found = opened("diverged")
    card = found.page.locator("#culprit-1")
    assert "eps is 0.001 instead of 1e-05" in card.inner_text()
    assert card.locator("tr.differs").all_inner_texts() == [
        "≠ weight\tbn1.weight, 64\tstem.bn.weight, 64",
        "≠ eps\t1e-05\t0.001",
    ]
    sizes = card.locator("img").evaluate_all(
        "all => all.map(each => [each.naturalWidth, each.naturalHeight])"
    )
    assert sizes == [[4, 4]] * 3


def test_one_cause_at_many_sites_is_a_page_that_is_read_in_a_minute(opened: Callable[..., Opened]) -> None:
    found = opened("one cause")
    assert found.tells("document.documentElement.scrollHeight") <= 7000
    assert found.page.locator(".culprit-card").count() == 1
    card = found.page.locator("#culprit-1")
    assert not card.locator(".sites table").is_visible()
    card.locator(".sites summary").click()
    assert len(found.texts(".sites tbody tr")) == 52
    card.get_by_role("button", name="layer1.1.bn", exact=True).click()
    assert found.page.locator("#details h3").inner_text() == "layer1.1.bn"
    assert found.texts("main > section > h2")[:2] == ["Error over depth", "First divergence and one cause"]


def test_where_nothing_was_loaded_the_page_is_no_longer_than_of_one_cause(
    opened: Callable[..., Opened],
) -> None:
    height = "document.documentElement.scrollHeight"
    found = opened("nothing loaded")
    assert found.page.locator(".culprit-card").count() == 1
    assert found.tells(height) <= opened("one cause").tells(height) + 100


def test_cards_are_folded_but_for_the_first_and_open_where_a_link_leads(
    opened: Callable[..., Opened],
) -> None:
    found = opened("three culprits")
    cards = "[...document.querySelectorAll('.culprit-card')].map(each => each.open)"
    assert found.tells(cards) == [True, False, False]
    found.tells("location.hash = 'culprit-3'")
    found.page.wait_for_function("document.getElementById('culprit-3').open")
    assert found.tells(cards) == [True, False, True]


@pytest.mark.parametrize("name", ["match", "diverged", "three culprits", "matrix", "one cause", "accepted"])
def test_mean_squared_error_and_correlation_are_columns_that_fit(
    opened: Callable[..., Opened], name: str
) -> None:
    found = opened(name)
    width = "document.getElementById('grid').scrollWidth - document.getElementById('grid').clientWidth"
    assert found.tells(width) == 0
    heads = found.texts("#table thead th")
    assert {"MSE", "r", "1 - r"} <= set(heads)
    assert "shape" not in heads
    found.page.check("#every")
    assert "shape" in found.texts("#table thead th")


def test_r_has_the_digits_that_tell_it_from_1_and_sorts_by_them(opened: Callable[..., Opened]) -> None:
    found = opened("diverged")
    rows = samples.diverged().cells[0].layers
    assert found.column("r") == [
        wording.figure(1 - row.total.one_minus_pearson) for row in rows if row.total is not None
    ]
    found.page.locator("#table thead button", has_text="r").and_(found.page.locator("[data-key=r]")).click()
    assert found.column("baseline")[0] == "conv1"
    assert found.column("r ↓" if "r ↓" in found.texts("#table thead th") else "r")[0] == "1"


def test_stage_0_and_blocks_have_parts_that_the_navigation_leads_to(opened: Callable[..., Opened]) -> None:
    found = opened("photographs")
    found.page.get_by_role("link", name="Preprocessing", exact=True).click()
    assert found.tells("location.hash") == "#preprocessing"
    rows = found.page.locator("#preprocessing tbody tr")
    assert [row.split("\t")[:2] for row in rows.all_inner_texts()] == [
        ["decode", "given"],
        ["resize", "differs"],
        ["final tensor", ""],
    ]
    assert "1 of 2 blocks match" in found.texts("#steps li")
    assert opened("match").page.locator("#preprocessing, #steps").count() == 0


def test_a_culprit_leads_to_its_row(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    found.page.locator("#culprit-1 button").click()
    name = str(samples.deep().culprits[0].baseline)
    assert found.page.locator("#details h3").inner_text() == name
    assert found.texts("tr.looked-at td.site") == [name]


def test_names_filter_the_table(opened: Callable[..., Opened]) -> None:
    from playwright.sync_api import expect

    found = opened("diverged")
    found.page.fill("#wanted", "BN1")
    shown = found.page.locator("#shown")
    expect(shown).to_have_text("2 of 8 rows")
    assert found.column("baseline") == ["bn1", "layer1.0.bn1"]
    found.page.fill("#wanted", "stem")  # a candidate's name
    expect(shown).to_have_text("1 of 8 rows")
    assert found.column("candidate") == ["stem.bn"]
    found.page.fill("#wanted", "nothing like it")
    expect(shown).to_have_text("0 of 8 rows: none fits the filters")


def test_statuses_operators_and_cells_filter_the_table(opened: Callable[..., Opened]) -> None:
    found = opened("diverged")
    assert found.texts("#statuses label") == ["✗ culprit 1", "→ carries 6", "✓ ok 1"]
    found.page.uncheck("#statuses label:has-text('carries') input")
    assert found.column("baseline") == ["conv1", "bn1"]
    found.page.select_option("#op", "batch_norm")
    assert found.column("baseline") == ["bn1"]
    found.page.select_option("#cell", "all")
    assert found.column("cell") == ["cpu/float64", "cpu/float32"]


def test_what_a_policy_accepts_is_called_so_in_every_part(opened: Callable[..., Opened]) -> None:
    found = opened("accepted")
    assert found.texts("#statuses label")[0] == "≈ accepted by policy 1"
    assert found.column("status")[1] == "≈ accepted by policy"
    assert "accepted by policy" in found.page.locator("#tree").inner_text()
    found.page.locator("#table tbody tr[data-place='1']").click()
    assert "accepted by policy" in found.page.locator("#details").inner_text()
    shown = found.page.locator("nav, main > section:not(#method)").all_inner_texts()
    assert not [text for text in shown if "culprit" in text.lower() or "divergence" in text.lower()]


def test_headings_sort_the_table_both_ways_and_back(opened: Callable[..., Opened]) -> None:
    found = opened("diverged")
    total = found.page.locator("#table thead button", has_text="rel. error")
    total.click()
    assert found.column("rel. error ↓" if "rel. error ↓" in found.texts("#table thead th") else "rel. error")[
        :3
    ] == [
        "0.0007",
        "0.0006",
        "0.0005",
    ]
    assert found.page.locator("th[aria-sort=descending]").count() == 1
    total.click()
    assert found.column("baseline")[0] == "conv1"
    assert found.page.locator("th[aria-sort=ascending]").count() == 1
    found.page.locator("#table thead button", has_text="intrinsic").click()
    assert found.column("intrinsic")[-1] == "-"  # what was not measured comes last
    found.page.locator("#table thead button", has_text="baseline").click()
    assert found.column("baseline") == sorted(found.column("baseline"))
    found.page.locator("#table thead button", has_text="baseline").click()
    found.page.locator("#table thead button", has_text="baseline").click()
    assert found.page.locator("th[aria-sort]").count() == 0
    assert found.column("#") == [str(k) for k in range(8)]


def test_figures_read_as_the_summary_writes_them(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    rows = samples.deep().cells[0].layers[:20]
    expected = [wording.figure(float(f"{row.total.nrmse:.3g}")) for row in rows if row.total]
    assert found.column("rel. error")[:20] == expected


def test_a_row_shows_all_its_figures_in_every_cell_and_gives_the_focus_back(
    opened: Callable[..., Opened],
) -> None:
    found = opened("diverged")
    row = found.page.locator("#table tbody tr[data-place='1']")
    row.click()
    details = found.page.locator("#details")
    text = details.inner_text()
    assert "bn1 (candidate: stem.bn)" in text
    assert found.texts("#details thead th") == ["cpu/float64", "cpu/float32"]
    assert found.texts("#details tr:has(th:text-is('largest absolute difference')) td") == ["0.002"] * 4
    found.page.keyboard.press("Escape")
    assert not details.is_visible()
    assert found.tells("document.activeElement.dataset.place") == "1"


def test_the_keyboard_walks_the_table(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    found.page.locator("#table thead button").last.focus()
    found.page.keyboard.press("Tab")
    place = "Number(document.activeElement.dataset.place)"
    assert found.tells(place) == 0
    for key, expected in (("ArrowDown", 1), ("End", 3699), ("ArrowUp", 3698), ("Home", 0)):
        found.page.keyboard.press(key)
        assert found.tells(place) == expected, key
    found.page.keyboard.press("PageDown")
    assert 5 < found.tells(place) < 40
    found.page.keyboard.press("Enter")
    assert found.page.locator("#details").is_visible()


def test_a_screen_reader_is_told_how_long_the_table_is(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    assert found.page.locator("#table").get_attribute("aria-rowcount") == "3701"
    assert found.page.locator("#table tbody tr[data-place]").first.get_attribute("aria-rowindex") == "2"


def test_the_tree_opens_where_the_culprit_is_and_marks_the_worst_inside(
    opened: Callable[..., Opened],
) -> None:
    found = opened("deep")
    top = found.texts("#tree > details > summary")
    assert [text.split("\n")[0] for text in top] == ["✓ ok", "✗ culprit", "→ carries", "→ carries"]
    assert found.page.locator("#tree > details[open]").count() == 1
    [culprit] = found.page.locator("#tree .leaf:has(.mark.culprit)").all()
    assert str(samples.deep().culprits[0].baseline) in culprit.inner_text()
    last = found.page.locator("#tree > details").last
    last.locator("summary").first.click()
    last.locator("details").nth(10).wait_for(state="attached")


def test_sites_without_a_partner_show_on_both_sides_of_the_tree(opened: Callable[..., Opened]) -> None:
    found = opened("three culprits")
    leaf = found.page.locator("#tree .leaf", has_text="layer1.0.dropout")
    assert leaf.locator(".none").inner_text() == "no partner"


def test_the_chart_names_the_site_under_the_pointer_and_leads_to_its_row(
    opened: Callable[..., Opened],
) -> None:
    found = opened("deep")
    culprit = samples.deep().culprits[0]
    plot = found.page.locator("#plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    at = (box["x"] + box["width"] * (culprit.index + 0.5) / 3700, box["y"] + 50)
    found.page.mouse.move(*at)
    tip = found.page.locator("#tip")
    assert tip.is_visible()
    near = tip.locator("b").inner_text()
    rows = samples.deep().cells[0].layers
    assert (
        abs(next(row.index for row in rows if row.baseline == near) - culprit.index) <= 4
    )  # less than 2 pixels
    found.page.mouse.click(*at)
    assert found.page.locator("#details h3").inner_text() == near
    assert near in found.column("baseline")


def test_dragging_zooms_and_a_button_shows_the_whole_again(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    plot = found.page.locator("#plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    view = "document.getElementById('lines').getAttribute('viewBox')"
    whole = found.tells(view)
    found.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 80)
    found.page.mouse.down()
    found.page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 80, steps=4)
    found.page.mouse.up()
    left, _, width, _ = map(float, found.tells(view).split())
    assert 1600 < left < 1700
    assert 340 < width < 400
    assert len(found.texts("#places text")) >= 3
    found.page.locator("#whole").click()
    assert found.tells(view) == whole


def test_the_chart_is_walked_and_read_by_keyboard(opened: Callable[..., Opened]) -> None:
    found = opened("deep")
    plot = found.page.locator("#plot")
    plot.focus()
    said: Callable[[], Any] = lambda: plot.get_attribute("aria-valuetext")  # noqa: E731 - read anew each time
    assert "3,700 sites" in said()
    found.page.keyboard.press("ArrowRight")
    assert said().startswith("layer1.0.conv1, conv, ok; total ")
    found.page.keyboard.press("ArrowRight")
    assert said().startswith("layer1.0.bn1, ")
    found.page.keyboard.press("End")
    assert plot.get_attribute("aria-valuenow") == "3699"
    for _ in range(5):
        found.page.keyboard.press("+")
    assert found.page.locator("#whole").is_visible()
    name = said().split(",")[0]
    found.page.keyboard.press("Enter")
    assert found.page.locator("#details h3").inner_text() == name


def test_choosing_a_cell_shows_it_in_chart_tree_and_table(opened: Callable[..., Opened]) -> None:
    found = opened("matrix")
    assert found.column("status")[1].endswith("culprit")
    found.page.locator("#lanes button", has_text="cpu/float64").click()
    assert found.page.locator("#lanes [aria-pressed=true]").inner_text().strip() == "cpu/float64"
    assert found.page.locator("#cell option:checked").inner_text() == "cpu/float64"
    assert set(found.column("status")) == {"✓ ok"}
    assert found.page.locator("#tree .mark.culprit").count() == 0
    assert found.page.locator(".series.focus").get_attribute("data-cell") == "0"


def test_hostile_names_are_text_everywhere(opened: Callable[..., Opened]) -> None:
    found = opened("hostile")
    dialogs: list[str] = []

    def refuse(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    found.page.on("dialog", refuse)
    found.page.locator("#table tbody tr[data-place]").first.click()
    assert "</script><script>alert(1)</script>" in found.page.locator("#details").inner_text()
    assert "</script><script>alert(1)</script>" in found.column("baseline")[0]
    found.page.keyboard.press("Escape")
    found.page.locator("#plot").focus()
    found.page.keyboard.press("ArrowRight")
    assert "</script>" in found.page.locator("#tip").inner_text()
    assert found.page.locator("script").count() == 2
    assert dialogs == []


def test_a_page_whose_script_may_not_run_still_tells_what_matters(opened: Callable[..., Opened]) -> None:
    found = opened("diverged", script=False)
    text = found.page.locator("body").inner_text()
    assert "eps is 0.001 instead of 1e-05" in text
    assert "need the script on this page" in text
    assert found.page.locator(".series.focus .line").count() == 1


def test_a_deep_network_in_three_cells_is_ready_soon_and_stays_smooth(opened: Callable[..., Opened]) -> None:
    opened("match")  # the browser has started
    started = time.perf_counter()
    found = opened("deep")
    assert time.perf_counter() - started < 2 * SLACK
    found.page.select_option("#cell", "all")
    assert found.page.locator("#shown").inner_text() == "11,100 of 11,100 rows"
    middle = found.tells(
        """async () => {
          const grid = document.getElementById('grid'), frames = [];
          let before = performance.now();
          for (let k = 0; k < 60; k++) {
            grid.scrollTop += 700;
            await new Promise(requestAnimationFrame);
            const now = performance.now();
            frames.push(now - before);
            before = now;
          }
          return frames.sort((a, b) => a - b)[30];
        }"""
    )
    assert middle < 50 * SLACK  # milliseconds
    assert found.page.locator("#table tbody tr").count() < 120
    total = found.page.locator("#table thead button", has_text="rel. error")
    started = time.perf_counter()
    total.click()
    assert time.perf_counter() - started < 0.5 * SLACK


def test_a_printed_page_has_all_culprits_and_the_rows_of_the_table(opened: Callable[..., Opened]) -> None:
    found = opened("three culprits")
    found.tells("dispatchEvent(new Event('beforeprint'))")
    found.page.emulate_media(media="print")
    assert not found.page.locator("nav").is_visible()
    assert found.page.locator(".culprit-card").count() == 3
    assert len(found.column("baseline")) == 7
    assert len(found.page.pdf()) > 10_000


def test_the_data_on_the_page_is_what_the_view_made(opened: Callable[..., Opened]) -> None:
    from reports import table

    found = opened("hostile")
    shown = json.loads(found.tells("document.getElementById('data').textContent"))
    assert shown == json.loads(json.dumps(table.data(wording.shown(samples.hostile()))))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_ladder_unfolds_and_keeps_to_the_page(opened: Callable[..., Opened], width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = opened("deployed", width=width)
    ladder = found.page.locator("#stages details")
    assert not ladder.locator("table").is_visible()
    ladder.locator("summary").click()
    assert ladder.locator("thead th").all_inner_texts() == [
        "site", "one by one", "basic, float32", "extended, float32"
    ]  # fmt: skip
    assert ladder.locator("tbody th[scope=row]").count() == len(samples.deployed().layers)
    assert found.tells("document.documentElement.scrollWidth <= window.innerWidth")
    violations = Axe().run(found.page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:2]) for each in violations] == []
