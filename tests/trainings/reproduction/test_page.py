"""results.html as a browser shows it, and what its text holds."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import main
from datasets.labels import PALETTE
from tests.support.browser import CHROMIUM, Browser
from tests.support.helpers import picture
from tests.support.reports import write_reproduction
from trainings import catalog
from trainings.reproduction.comparisons import compared
from trainings.reproduction.figures import method_looks
from trainings.reproduction.page import Report, page
from trainings.reproduction.page_charts import ticks
from trainings.reproduction.planned import planned_lines
from trainings.reproduction.sheets import Shown, draw_overview
from utils.cli.command_line import parse_settings
from utils.disk.run_folder import RunFolder
from utils.pictures.panels import ComparisonRow
from utils.pictures.sheet import EDGE, GAP

METHODS = ["Source-only", "ADA", "FDA 0.05"]
NASTY = "<script>alert('1')</script>&\"'"
LARGEST = 5_000_000

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")


def shown_image(number):
    """An image whose left half is road and right half is sky; one method is right, one finds road
    alone, one is half right."""
    right = np.full((64, 96), 10, np.uint8)
    right[:, :48] = 0
    truth, half = right.copy(), right.copy()
    truth[:4] = 255
    half[32:] = 13
    maps = [np.zeros_like(right), right, half]
    return ComparisonRow(f"image {number} {NASTY}", picture(number, (64, 96)), truth, maps)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "reproduce"
    write_reproduction(folder)
    settings = parse_settings(["--action", "report"], main.ACTIONS)
    lines = planned_lines(folder, catalog.STEPS, settings)
    shown = Shown("adamw", "two images", METHODS, [shown_image(number) for number in range(2)])
    return Report(
        name=f"demo {NASTY}",
        lines=compared(lines),
        shown=[shown],
        looks=method_looks(lines, catalog.STEPS),
        warnings=[f"Warning: {NASTY}"],
        commands=["python main.py --action demo"],
        folder=folder,
        settings_type=type(settings),
    )


@pytest.fixture(scope="module")
def html(report):
    return page(report)


class Texts(HTMLParser):
    """The tags of a page, and its texts outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self._inside = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_data(self, data):
        if self._inside[-1:] not in (["script"], ["style"]):
            self.texts.append(data)


def test_the_overview_shows_image_source_only_the_best_method_and_truth(report, tmp_path):
    (shown,) = report.shown
    mious = {line.series: miou.mean for line in report.lines if (miou := line.miou())}
    best = max(METHODS[1:], key=mious.__getitem__)
    (name,) = draw_overview(RunFolder(tmp_path), shown, report.lines)
    with Image.open(tmp_path / name) as sheet:
        drawn = np.array(sheet)
    maps = [shown.rows[0].predictions[METHODS.index(name)] for name in ("Source-only", best)]
    width = (drawn.shape[1] - 2 * EDGE + GAP) // 4  # image, two methods and truth
    low = np.flatnonzero((drawn[:, EDGE + width + 5] == PALETTE[0]).all(-1))[130]
    for column, train_ids in enumerate([*maps, shown.rows[0].truth], start=1):
        for x, at in ((5, 0), (width - GAP - 5, -1)):
            found = drawn[low, EDGE + column * width + x]
            assert found.tolist() == PALETTE[train_ids[52, at]].tolist()


def test_a_score_on_the_source_does_not_stand_for_source_only_on_the_target(report):
    (shown,) = report.shown
    shown = shown._replace(methods=METHODS[::-1])
    source_last = sorted(report.lines, key=lambda line: not line.on_target)
    assert not source_last[-1].on_target
    assert shown.compared_first(source_last).left == METHODS[::-1].index("Source-only")


def test_one_method_alone_has_no_overview(report, tmp_path):
    (shown,) = report.shown
    rows = [row._replace(predictions=row.predictions[:1]) for row in shown.rows]
    alone = shown._replace(methods=METHODS[:1], rows=rows)
    assert draw_overview(RunFolder(tmp_path), alone, report.lines) == []
    assert not list(tmp_path.iterdir())


def test_values_are_escaped(html):
    assert NASTY not in html
    assert any(NASTY in text for text in Texts(html).texts)
    scripts = [attributes for tag, attributes in Texts(html).tags if tag == "script"]
    assert len(scripts) == 2


def test_the_page_is_one_file_that_names_nothing_outside(html):
    for tag, attributes in Texts(html).tags:
        assert tag not in ("iframe", "object", "embed") and not attributes.get("srcset")
        assert attributes.get("src", "data:").startswith("data:")
        if tag == "link":
            assert attributes["href"].startswith("data:")
    assert not re.search(r"https?://|@import|url\((?!data:)", html)
    assert len(html.encode()) < LARGEST


def test_each_run_has_the_command_that_repeats_it(html):
    command = (
        "python main.py --action train_fda --image_size 64 96 --base_width 8 --optimizer adamw "
        "--seed 1 --fda_beta 0.05"
    )
    codes = re.findall("<code>(.*?)</code>", html)
    written = ["".join(Texts(code).texts) for code in codes]
    assert sorted(command.split()) in [sorted(text.split()) for text in written]


def test_what_is_missing_is_said(html):
    text = "".join(Texts(html).texts)
    assert "Real data: Toy City is drawn by this program." in text
    assert re.search(r"Not trained or not scored: .*SSL-FDA 0\.05", text)
    assert "started from random weights" in text


def test_the_same_runs_give_the_same_page(report, html):
    assert page(report) == html


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (13.2, 13.2, [10, 15]), (7.4, 14.2, [6, 8, 10, 12, 14, 16])],
)
def test_ticks_are_round_and_span_the_values(low, high, expected):
    assert ticks(low, high) == expected


# ------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture
def opened(browser, html, tmp_path):
    """The page in a browser that has nothing to complain about and asks for nothing outside."""
    path = tmp_path / "results.html"
    path.write_text(html)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    browser.wait_for("document.querySelector('#left-canvas').getAttribute('aria-label') !== null")
    yield browser
    assert browser.complaints == []
    outside = [url for url in browser.requests if not url.startswith("data:")]
    assert outside == [path.as_uri()]


def column(browser, number):
    """Cells of a column of the first table, from above."""
    cells = f"[...document.querySelectorAll('.story tbody tr')].map(r => r.children[{number}])"
    return browser.run(f"{cells}.map(c => c.dataset.value)")


@needs_browser
def test_a_heading_sorts_its_table(opened):
    before = column(opened, 1)
    button = "document.querySelectorAll('.story .sort')[1]"
    orders = []
    for _ in range(2):
        opened.run(f"{button}.click()")
        orders.append(opened.run(f"{button}.closest('th').getAttribute('aria-sort')"))
        values = list(map(float, column(opened, 1)))
        assert sorted(values, reverse=orders[-1] == "descending") == values
    assert orders == ["descending", "ascending"] and sorted(before) == sorted(column(opened, 1))


def pixel(browser, side, x, y):
    """Colour at a place, read from a copy: the page's own canvas is not made to be read."""
    copy = "Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d')"
    draw = f"copy.drawImage(document.querySelector('#{side}-canvas'), {-x}, {-y})"
    read = "[...copy.getImageData(0, 0, 1, 1).data].slice(0, 3)"
    return browser.run(f"{{const copy = {copy}; {draw}; {read}}}")


ROAD, SKY, WRONG = [128, 64, 128], [70, 130, 180], [213, 94, 0]


def set_opacity(browser, percent):
    script = f"const o = document.querySelector('#opacity'); o.value = {percent};"
    browser.run(f"{{{script} o.dispatchEvent(new Event('input'))}}")
    browser.run("new Promise(done => setTimeout(done, 100))")


@needs_browser
def test_two_methods_are_shown_with_their_scores_on_the_image(opened):
    labels = opened.run(
        "['left', 'right'].map(s => document.querySelector(`#${s}-caption`).innerText)"
    )
    assert "Source-only" in labels[0] and "mIoU 25.0 %" in labels[0]  # road 0.5, sky 0
    assert "FDA 0.05" in labels[1]
    set_opacity(opened, 100)
    assert pixel(opened, "left", 90, 10) == ROAD and pixel(opened, "right", 90, 10) == SKY
    set_opacity(opened, 0)
    assert pixel(opened, "left", 90, 10) == pixel(opened, "right", 90, 10) not in (ROAD, SKY)


@needs_browser
def test_keys_show_truth_and_errors(opened):
    set_opacity(opened, 100)
    opened.press("t")
    opened.wait_for("document.querySelector('#left-caption').innerText.includes('Truth')")
    assert pixel(opened, "left", 90, 10) == SKY
    opened.press("t")
    opened.press("e")
    opened.wait_for("document.querySelector('#errors').getAttribute('aria-pressed') === 'true'")
    assert pixel(opened, "left", 90, 10) == WRONG and pixel(opened, "left", 10, 10) != WRONG
    assert pixel(opened, "left", 10, 1) == [0, 0, 0]  # not labelled
    name = "document.querySelector('#left-canvas').getAttribute('aria-label')"
    assert "image 0" in opened.run(name)
    opened.press("ArrowRight")
    opened.wait_for(f"{name}.includes('image 1')")


@needs_browser
def test_without_labels_there_is_no_truth_to_see(browser, report, tmp_path):
    (shown,) = report.shown
    rows = [row._replace(truth=np.full_like(row.truth, 255)) for row in shown.rows]
    shown = shown._replace(rows=rows, unlabelled="my dashcam")
    path = tmp_path / "results.html"
    path.write_text(page(report._replace(shown=[shown])))
    browser.complaints.clear()
    browser.open(path)
    browser.wait_for("document.querySelector('#left-canvas').getAttribute('aria-label') !== null")
    set_opacity(browser, 100)
    for key in "te":  # they would show truth and errors
        browser.press(key)
    assert pixel(browser, "left", 90, 10) == ROAD and pixel(browser, "right", 90, 10) == SKY
    choices = "[...document.querySelectorAll('#left option')].map(one => one.textContent)"
    assert browser.run(choices) == [*METHODS, "Photograph"]
    buttons = "['truth', 'errors'].map(one => document.querySelector(`#${one}`).offsetWidth)"
    assert browser.run(buttons) == [0, 0]
    assert browser.complaints == []


@needs_browser
def test_the_slider_moves_with_the_mouse_and_the_keyboard(opened):
    opened.run("document.querySelector('input[value=slider]').click()")
    opened.run(
        "document.querySelector('#stage').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    sides = "['left', 'top', 'width', 'height'].map(n => b[n])"
    left, top, width, height = opened.run(
        f"{{const b = document.querySelector('#left-canvas').getBoundingClientRect(); {sides}}}"
    )

    def at(share):
        return left + share * width, top + height / 2

    opened.mouse("mousePressed", *at(0.25))
    place = "getComputedStyle(document.querySelector('#stage')).getPropertyValue('--wipe')"
    opened.wait_for(f"{place} === '25%'")
    opened.mouse("mouseMoved", *at(0.75))
    opened.mouse("mouseReleased", *at(0.75))
    opened.wait_for(f"{place} === '75%'")
    clip = opened.run("getComputedStyle(document.querySelector('#right-canvas')).clipPath")
    assert clip == "inset(0px 0px 0px 75%)"
    opened.run("document.querySelector('#wipe').focus()")
    opened.press("ArrowRight")
    opened.wait_for(f"{place} === '76%'")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1200, True)])
def test_nothing_is_wider_than_the_window(browser, html, tmp_path, width, dark):
    path = tmp_path / "results.html"
    path.write_text(html)
    browser.open(path, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    red = "(n) => Number(getComputedStyle(document.body)[n].match(/\\d+/)[0])"
    ink, paper = browser.run(f"['color', 'backgroundColor'].map({red})")
    assert (ink > paper) is dark
