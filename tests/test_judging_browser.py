"""The report page in a real browser: it opens without a network, filters at once, and shows hostile text as text."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sample_judgement import HOSTILE, classified, hostile, judged, of_labels, of_many_items, preferred

from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.report import report_html
from edgetune.judging.report.changes import find_changes
from edgetune.judging.results.judgement import Judgement
from edgetune.visible_text import visible

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
_PHONE = {"width": 390, "height": 844}
_NARROW = {"width": 360, "height": 780}
_DESKTOP = {"width": 1280, "height": 900}
_AT_ONCE_MILLISECONDS = 1000
"""Generous, for a busy machine: some 10 ms are usual."""

_MEASURE = """(act) => {
    const started = performance.now();
    new Function(act)();
    document.body.offsetHeight;
    return performance.now() - started;
}"""
"""Milliseconds from an act of the reader until the page is laid out anew."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, as the system has it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_FLAGS.split())
        yield launched
        launched.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    """Open a judgement's page from disk. In the end: no errors, no dialogs, and no request but for the file itself."""
    troubles: list[str] = []
    requests: list[str] = []
    contexts = []

    def open_page(judgement: Judgement, viewport: dict[str, int] | None = None, **options: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(report_html(judgement), encoding="utf-8")
        context = browser.new_context(viewport=viewport or _DESKTOP, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
    assert set(requests) == {(tmp_path / "report.html").as_uri()}


def filters(page: Any) -> dict[str, int]:
    """The filters that the page offers, with their counts."""
    found = {}
    for button in page.query_selector_all("#filters button"):
        name, count = button.inner_text().rsplit(None, 1)
        found[name] = int(count.replace(",", ""))
    return found


def statuses(page: Any) -> list[str]:
    return [element.inner_text() for element in page.query_selector_all("#list .status")]


def test_the_verdict_is_the_first_thing_on_screen(opened: Opened) -> None:
    page = opened(judged())
    assert page.inner_text("h1") == "REGRESSION"
    box = page.query_selector("#verdict").bounding_box()
    assert box["y"] < 200
    assert page.title().startswith("REGRESSION: candidate-q4_k_m.gguf")
    assert page.query_selector("h2").bounding_box()["y"] > box["y"]


def test_filters_count_and_show_what_the_judgement_says(opened: Opened) -> None:
    judgement = judged()
    changes = find_changes(judgement)
    page = opened(judgement)
    counted = {
        "all": len(changes),
        **{f"got {status}": sum(one.status == status for one in changes) for status in ("worse", "better")},
        "same": sum(one.status == "same" for one in changes),
        "unscored": sum(one.unscored for one in changes),
        "degenerate": sum(one.degenerate for one in changes),
    }
    assert filters(page) == counted
    page.click("#filters button[data-filter=better]")
    assert set(statuses(page)) == {"better"}
    assert page.inner_text("#count") == f"{counted['got better']} of 500 items"
    page.click("#filters button[data-filter=degenerate]")
    assert len(statuses(page)) == counted["degenerate"]
    assert page.get_attribute("#filters button[data-filter=degenerate]", "aria-pressed") == "true"
    assert page.get_attribute("#filters button[data-filter=better]", "aria-pressed") == "false"


def test_500_items_open_filter_and_search_at_once(opened: Opened) -> None:
    page = opened(judged())
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
    took = {"open": loaded}
    for name in ("worse", "same", "all"):
        act = f"document.querySelector('#filters button[data-filter={name}]').click()"
        took[f"filter {name}"] = page.evaluate(_MEASURE, act)
    for query in ("b", "ba", "battery", "battery lasts"):
        act = f"const s = document.getElementById('search'); s.value = '{query}'; s.dispatchEvent(new Event('input'))"
        took[f"search {query}"] = page.evaluate(_MEASURE, act)
    print({name: f"{milliseconds:.0f} ms" for name, milliseconds in took.items()})
    assert all(milliseconds < _AT_ONCE_MILLISECONDS for name, milliseconds in took.items() if name != "open")
    assert loaded < 5 * _AT_ONCE_MILLISECONDS


def test_search_finds_answers_and_reasons_and_marks_them(opened: Opened) -> None:
    judgement = judged()
    assert judgement.baseline is not None
    sides = (judgement.candidate, judgement.baseline)
    reason = next(grade.reason for grade in judgement.candidate.grades if grade.reason)
    page = opened(judgement)
    page.fill("#search", reason.upper())
    given = {grade.item for side in sides for grade in side.grades if grade.reason == reason}
    assert page.inner_text("#count") == f"{len(given)} of 500 items"
    assert page.inner_text("#list .opinion mark") == reason
    page.fill("#search", "no such words .*")
    assert statuses(page) == []
    assert page.inner_text("#count") == "0 of 500 items"


def test_order_can_be_turned_around(opened: Opened) -> None:
    judgement = judged(60)
    page = opened(judgement)
    assert statuses(page)[0] == "worse"
    page.select_option("#sort", "best")
    assert statuses(page)[0] == "better"
    page.select_option("#sort", "suite")
    assert page.inner_text("#list .gist b") == judgement.items[0].id


def test_all_items_come_as_one_scrolls(opened: Opened) -> None:
    page = opened(judged())
    first = len(statuses(page))
    assert first < 200
    page.wait_for_function(
        "() => { window.scrollTo(0, document.body.scrollHeight);"
        " return document.querySelectorAll('#list > li').length === 500 }"
    )


def test_an_item_shows_both_answers_side_by_side_with_grades_and_reasons(opened: Opened) -> None:
    judgement = judged(60)
    page = opened(judgement)
    worst = page.query_selector("#list details")
    name = worst.query_selector(".gist b").inner_text()
    left, right = worst.query_selector_all(".side")
    assert left.bounding_box()["x"] < right.bounding_box()["x"]
    assert abs(left.bounding_box()["y"] - right.bounding_box()["y"]) < 2
    for box, side in ((left, judgement.baseline), (right, judgement.candidate)):
        shown = box.inner_text()
        answer = next(answer for answer in side.answers if answer.id == name)  # type: ignore[union-attr]
        assert answer.text in shown
        for grade in (grade for grade in side.grades if grade.item == name):  # type: ignore[union-attr]
            assert (grade.degenerate or grade.problem or grade.reason) in shown


def test_both_orders_of_a_pair_are_shown(opened: Opened) -> None:
    page = opened(preferred(8, outcome=Outcome.PASS))
    shown = page.inner_text("#list details")
    assert "candidate first: prefers the baseline" in shown
    assert "baseline first: prefers the baseline" in shown


@pytest.mark.parametrize("sample", [judged, classified, hostile], ids=["judged", "classified", "hostile"])
def test_a_phone_never_scrolls_sideways(opened: Opened, sample: Callable[[], Judgement]) -> None:
    page = opened(sample(), _PHONE, color_scheme="dark")
    page.click("#open")
    assert page.evaluate("document.documentElement.scrollWidth") == _PHONE["width"]
    wide = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((element) => {
            const box = element.getBoundingClientRect();
            return box.right > innerWidth + 1 && !element.closest(".scroll");
        }).map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert wide == []


@pytest.mark.parametrize("viewport", [_NARROW, _PHONE, _DESKTOP], ids=["360", "390", "1280"])
@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.REGRESSION, Outcome.INCONCLUSIVE])
def test_no_line_of_a_picture_crosses_a_word(opened: Opened, viewport: dict[str, int], outcome: Outcome) -> None:
    page = opened(judged(6, outcome=outcome), viewport)
    assert page.evaluate(_CROSSED) == []
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_no_count_is_broken_into_lines(opened: Opened) -> None:
    page = opened(of_many_items(12_345), _NARROW)
    page.click("details.labels summary")
    assert "," in page.inner_text(".matrix tbody td")
    broken = page.evaluate(
        """() => [...document.querySelectorAll(".matrix td, .metrics td")].filter((cell) => {
            const words = document.createRange();
            for (const node of cell.childNodes) for (const word of (node.textContent.matchAll(/[^ ]+/g))) {
                const text = node.firstChild || node;
                words.setStart(text, word.index);
                words.setEnd(text, word.index + word[0].length);
                if (words.getClientRects().length > 1) return true;
            }
            return false;
        }).map((cell) => cell.textContent)"""
    )
    assert broken == []


def test_a_table_that_is_cut_says_so_until_its_end_is_seen(opened: Opened) -> None:
    page = opened(of_labels(tuple(f"label_{number:02d}" for number in range(20))), _NARROW)
    wide = page.query_selector(".matrices .wide")
    assert wide.query_selector(".hint").inner_text() == "Scroll sideways to see all 21 columns."
    assert wide.get_attribute("data-more").split() == ["right"]
    wide.query_selector(".scroll").evaluate("(scroll) => scroll.scrollTo(scroll.scrollWidth, 0)")
    page.wait_for_function("document.querySelector('.matrices .wide').dataset.more.trim() === 'left'")
    # The true label of a row stays in sight.
    assert wide.query_selector("tbody th").bounding_box()["x"] < 60
    small = opened(classified(60))
    hints = small.query_selector_all(".hint")
    assert hints
    assert not any(hint.is_visible() for hint in hints)


def test_metrics_of_labels_open_on_a_click(opened: Opened) -> None:
    page = opened(of_labels(tuple(f"label_{number:02d}" for number in range(20))), _PHONE)
    table = page.query_selector(".labels table")
    assert not table.is_visible()
    page.click(".labels summary")
    assert table.is_visible()
    assert table.inner_text().count("precision") == 20


def test_each_change_of_an_item_has_the_name_of_its_criterion(opened: Opened) -> None:
    page = opened(judged(20), _NARROW)
    changes = [change.inner_text() for change in page.query_selector("#list .moved").query_selector_all(".change")]
    assert [change.split()[0] for change in changes] == ["Correctness", "Completeness", "Instruction"]
    opinions = page.inner_text("#list details .side")
    assert "The grades are means over all verdicts; those of each judge are below." in opinions
    assert "gpt-small: Correctness" in opinions
    alone = opened(classified(20))
    assert alone.inner_text("#list .moved") == "right → wrong"


def test_filters_tell_of_items_that_the_page_leaves_out(opened: Opened) -> None:
    page = opened(classified(4000))
    assert "all 3,000 of 4,000" in page.inner_text("#filters")


def test_dark_and_light_are_both_readable(opened: Opened) -> None:
    page = opened(judged(20))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in ("#verdict", ".meaning", ".reason", ".facts", ".chip", ".legend", ".status", ".moved", "dt"):
            assert page.eval_on_selector(selector, _CONTRAST) >= 4.5, (scheme, selector)


def test_hostile_text_is_shown_as_text(opened: Opened) -> None:
    page = opened(hostile())
    page.click("#open")
    shown = page.inner_text("#list")
    for name, text in HOSTILE.items():
        words = " ".join(visible(text).split())
        assert words in " ".join(shown.split()), name
    assert page.query_selector_all("img") == []
    assert len(page.query_selector_all("script")) == 2
    assert page.query_selector_all("a[href^=javascript], #list a") == []
    page.fill("#search", "<script>")
    assert page.inner_text("#list mark") == "<script>"


def test_everything_can_be_done_from_the_keyboard(opened: Opened) -> None:
    page = opened(judged())
    page.keyboard.press("/")
    page.keyboard.type("battery")
    assert page.input_value("#search") == "battery"
    page.keyboard.press("Escape")
    assert page.inner_text("#count") == "500 of 500 items"
    page.focus("#filters button[data-filter=same]")
    page.keyboard.press("Enter")
    assert set(statuses(page)) == {"same"}
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    assert page.evaluate("[...document.querySelectorAll('#list summary')].indexOf(document.activeElement)") == 1


def test_a_screen_reader_hears_intervals_filters_and_counts(opened: Opened) -> None:
    page = opened(judged(60))
    assert page.get_by_role("img", name="Correctness: difference −0.50 grades").count() == 1
    assert page.get_by_role("searchbox", name="Search all text").count() == 1
    assert page.get_by_role("button", name="got worse", pressed=False).count() == 1
    assert page.get_by_role("status").inner_text() == "60 of 60 items"
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("table").count() == 1


def test_without_javascript_everything_but_the_items_is_there(opened: Opened) -> None:
    page = opened(judged(20), java_script_enabled=False)
    assert page.inner_text("h1") == "REGRESSION"
    assert page.query_selector("#tools").is_visible() is False
    assert "report.json" in page.inner_text("noscript")


def test_paper_shows_the_verdict_and_no_tools(opened: Opened) -> None:
    page = opened(classified(60))
    page.emulate_media(media="print")
    assert page.query_selector("#tools").is_visible() is False
    assert page.query_selector("#verdict").is_visible()


_CROSSED = """() => [...document.querySelectorAll("svg.interval")].flatMap((picture) => {
    const frame = picture.closest(".comparison").getBoundingClientRect();
    const lines = [...picture.querySelectorAll("line, circle")].map((line) => line.getBoundingClientRect());
    return [...picture.querySelectorAll("text")].filter((text) => {
        const box = text.getBoundingClientRect();
        const beside = (line) => line.right < box.left || line.left > box.right;
        const apart = (line) => beside(line) || line.bottom < box.top || line.top > box.bottom;
        return box.left < frame.left || box.right > frame.right || !lines.every(apart);
    }).map((text) => text.textContent);
})"""
"""The words of the pictures that a line crosses, or that leave their card."""

_CONTRAST = """(element) => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgb = (color, under) => {
        canvas.fillStyle = `rgb(${under})`;
        canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (color) => color.map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    const under = layers.reduce((below, color) => rgb(color, below), [255, 255, 255]);
    const [a, b] = [light(rgb(getComputedStyle(element).color, under)), light(under)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
}"""
"""Contrast of an element's text with what lies under it, as WCAG 2.2 defines it."""


def test_reasoning_is_folded_until_it_is_asked_for(opened: Opened) -> None:
    judgement = judged(items=3)
    side = judgement.candidate
    answers = tuple(replace(answer, reasoning=f"hm {answer.id} </details><b>x</b>") for answer in side.answers)
    page = opened(replace(judgement, candidate=replace(side, answers=answers)))
    folded = page.query_selector_all("#list .item[open] .reasoning")
    assert len(folded) == 1
    text = folded[0].query_selector(".text")
    assert not text.is_visible()
    folded[0].query_selector("summary").click()
    assert text.is_visible()
    assert text.inner_text().endswith("</details><b>x</b>")
    page.keyboard.press("j")  # to the next item, not to what is folded in this one
    focused = page.evaluate("document.activeElement.parentElement.className")
    assert focused == "item"
