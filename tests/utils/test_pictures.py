import itertools
import math

import numpy as np
import pytest
from PIL import ImageDraw

from datasets.labels import CLASS_NAMES, IGNORE, PALETTE
from utils.pictures import (
    CHART_WIDTH,
    DOT,
    EDGE,
    ERROR_COLOR,
    GAP,
    GRID,
    PLOT_HEIGHT,
    SERIES_COLORS,
    SMALL,
    TITLE,
    ComparisonRow,
    PanelRow,
    bar_chart,
    comparison,
    error_map,
    error_panel,
    line_chart,
    panel,
)

HEIGHT, WIDTH = 32, 64
IMAGE = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
BLUE, ORANGE = SERIES_COLORS[:2]


def ids(train_id: int, scale: int = 1) -> np.ndarray:
    return np.full((scale * HEIGHT, scale * WIDTH), train_id, np.uint8)


def noise(seed: int) -> np.ndarray:
    """Train ids with a strip of ignored pixels."""
    labels = np.random.default_rng(seed).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    labels[:5] = IGNORE
    return labels


def has_color(picture: np.ndarray, color) -> np.ndarray:
    return (picture == color).all(-1)


def place(sheet: np.ndarray, train_id: int) -> tuple[int, ...]:
    """Top, left, height and width of the plain map of a class; the legend is narrower."""
    mask = has_color(sheet, PALETTE[train_id])
    rows = np.flatnonzero(mask.sum(1) >= WIDTH)
    columns = np.flatnonzero(mask[rows].all(0))
    return rows[0], columns[0], len(rows), len(columns)


def bar_lengths(chart: np.ndarray, color) -> list[int]:
    """Of the bars of a colour from the top, in pixels; the legend's box is no bar."""
    counts = has_color(chart, color).sum(1)
    return [int(count) for count, _ in itertools.groupby(counts) if count > SMALL]


def blue_columns(chart: np.ndarray) -> np.ndarray:
    """The first and the last that a line chart's line, which is below its legend, goes through."""
    below_legend = EDGE + TITLE + SMALL + 4 * GAP
    row = has_color(chart[below_legend:], BLUE).sum(1).argmax()
    return np.flatnonzero(has_color(chart[below_legend + row], BLUE))[[0, -1]]


# ------------------------------------------------------------------------------------------ errors


def test_an_error_map_marks_exactly_the_wrong_pixels_that_have_a_truth():
    image = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    truth, prediction = noise(0), np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    errors = error_map(image, truth, prediction)
    wrong, ignored = (truth != prediction) & (truth != IGNORE), truth == IGNORE
    assert np.array_equal(has_color(errors, ERROR_COLOR), wrong)
    assert np.array_equal(has_color(errors, PALETTE[IGNORE]), ignored)
    right = errors[~wrong & ~ignored]
    assert (right == right[:, :1]).all() and right.min() > 150 and len(np.unique(right)) > 10


def test_an_error_map_shows_the_image_at_the_truths_size():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    errors = error_map(image, ids(0), ids(0))
    assert errors.shape == (HEIGHT, WIDTH, 3) and errors.dtype == np.uint8
    assert (errors[:, : WIDTH // 4] < 200).all() and (errors[:, -WIDTH // 4 :] == 255).all()


def test_an_error_panel_has_the_map_in_its_fourth_column():
    def marked(prediction):
        row = PanelRow("frame", IMAGE, ids(3), prediction, "worst")
        return has_color(error_panel([row], title="", width=WIDTH), ERROR_COLOR)

    more = marked(ids(4)) & ~marked(ids(3))
    rows, columns = np.flatnonzero(more.any(1)), np.flatnonzero(more.any(0))
    left = EDGE + 3 * (WIDTH + GAP)
    assert more.sum() == HEIGHT * WIDTH and np.ptp(rows) == HEIGHT - 1
    assert (columns[0], columns[-1]) == (left, left + WIDTH - 1)


# ------------------------------------------------------------------------- panels and comparisons


def test_a_panel_holds_truth_and_prediction_and_blackens_what_is_not_scored():
    truth = ids(3)
    truth[: HEIGHT // 2] = IGNORE
    sheet = panel([PanelRow("frame", IMAGE, truth, ids(4))], title="", width=WIDTH)
    half = HEIGHT // 2
    assert place(sheet, 3)[1:] == (EDGE + WIDTH + GAP, half, WIDTH)
    assert place(sheet, 4)[1:] == (EDGE + 2 * (WIDTH + GAP), half, WIDTH)
    assert sheet.shape[1] == 3 * WIDTH + 2 * GAP + 2 * EDGE


def test_only_a_row_with_a_note_takes_room_for_a_caption():
    row = PanelRow("frame", IMAGE, ids(3), ids(4))
    bare, noted = (panel([r], title="") for r in (row, row._replace(note="worst")))
    assert len(bare) == len(panel([row._replace(name="other")], title=""))
    assert len(noted) > len(bare)


@pytest.mark.parametrize(("methods", "columns"), [(1, 3), (3, 5), (6, 4), (12, 5)])
def test_a_comparison_shows_each_method_in_its_place(methods, columns):
    row = ComparisonRow("frame", IMAGE, ids(18), [ids(m) for m in range(methods)])
    titles = [f"method {m}" for m in range(methods)]
    sheet = comparison([row], titles, title="", width=WIDTH)
    assert sheet.shape[1] == columns * (WIDTH + GAP) - GAP + 2 * EDGE
    tops = {}
    for index, train_id in enumerate([18, *range(methods)], start=1):
        line, column = divmod(index, columns)
        top, *rest = place(sheet, train_id)
        assert rest == [EDGE + column * (WIDTH + GAP), HEIGHT, WIDTH]
        assert tops.setdefault(line, top) == top
    assert sorted(tops.values()) == list(tops.values())


def test_a_methods_title_is_right_above_its_picture():
    row = ComparisonRow("frame", IMAGE, ids(18), [ids(m) for m in range(6)])
    sheets = [
        comparison([row], ["a", "b", "c", "d", name, "f"], title="", width=WIDTH) for name in "mn"
    ]
    rows, columns = np.nonzero((sheets[0] != sheets[1]).any(-1))
    top, left, _, _ = place(sheets[0], 4)
    assert left <= columns.min() and columns.max() < left + WIDTH
    assert top - SMALL - 2 * GAP <= rows.min() and rows.max() < top


def test_each_row_of_a_comparison_has_its_own_pictures():
    rows = [ComparisonRow(f"frame {i}", IMAGE, ids(18), [ids(i)], "note") for i in (2, 5)]
    sheet = comparison(rows, ["method"], title="", width=WIDTH)
    (first, *rest), (second, *rest_of_second) = place(sheet, 2), place(sheet, 5)
    assert rest == rest_of_second and second >= first + HEIGHT


def test_everything_is_scaled_to_the_columns_width():
    image = np.full((10, 20, 3), 200, np.uint8)
    labels = [noise(seed) for seed in range(3)]
    large = [np.kron(label, np.ones((2, 2), np.uint8)) for label in labels]
    same = ComparisonRow("frame", IMAGE, labels[0], labels[1:])
    mixed = ComparisonRow("frame", image, large[0], [large[1], labels[2]])
    sheets = [comparison([row], ["a", "b"], title="", width=WIDTH) for row in (same, mixed)]
    assert np.array_equal(*sheets)


def test_every_prediction_needs_a_title():
    with pytest.raises(AssertionError, match="frame"):
        comparison([ComparisonRow("frame", IMAGE, ids(0), [ids(0)])], ["a", "b"], title="")


def test_words_that_do_not_fit_lose_their_middle():
    row = PanelRow("n" * 300, IMAGE, ids(3), ids(4), "worst " * 100)
    for sheet in (
        panel([row], title="t" * 300, width=WIDTH),
        comparison([ComparisonRow(*row[:3], [row.prediction])], ["t" * 300], title="", width=WIDTH),
        bar_chart({"s" * 300: [1]}, ["c" * 300], title="t" * 300),
    ):
        assert (sheet[:, : EDGE - 1] == 255).all() and (sheet[:, -EDGE + 1 :] == 255).all()


def test_letters_that_the_font_lacks_are_spelled_out():
    charts = [bar_chart({"a": [1]}, [""], title=title) for title in ("β=1 à côté", "beta=1 a cote")]
    assert np.array_equal(*charts)


# -------------------------------------------------------------------------------------- bar charts


@pytest.mark.parametrize(("unit", "scale"), [("%", 1), ("ms", 100)])
def test_bars_end_at_the_grid_lines_of_their_values(unit, scale):
    values = [scale * tenth / 10 for tenth in range(1, 11)]
    chart = bar_chart({"a": values}, [str(v) for v in values], title="", unit=unit)
    bars = has_color(chart, BLUE)
    first = np.flatnonzero(bars.sum(1) > SMALL)[0]
    start = np.flatnonzero(bars[first])[0]
    lines = np.flatnonzero(has_color(chart[first - 2], GRID))
    assert np.array_equal(start - 1 + np.array(bar_lengths(chart, BLUE)), lines)


def test_the_bars_of_all_classes_are_proportional_to_their_values():
    values = np.linspace(0.05, 0.95, len(CLASS_NAMES))
    chart = bar_chart({"a": values, "b": values[::-1]}, CLASS_NAMES, title="IoU per class")
    for color, expected in ((BLUE, values), (ORANGE, values[::-1])):
        halves = np.hsplit(chart, 2)
        lengths = np.array([length for half in halves for length in bar_lengths(half, color)])
        assert lengths.shape == expected.shape
        assert np.allclose(lengths, lengths.sum() / expected.sum() * expected, atol=1)


def test_an_absent_value_has_no_bar_and_is_no_zero():
    def chart(value):
        return bar_chart({"a": [0.5, value, 0.5], "b": [0.2, 0.3, 0.4]}, ["x", "y", "z"], title="")

    absent, zero = chart(np.nan), chart(0)
    assert len(bar_lengths(absent, BLUE)) == len(bar_lengths(zero, BLUE)) == 2
    assert len(bar_lengths(absent, ORANGE)) == 3
    assert not np.array_equal(absent, zero) and np.array_equal(absent, chart(None))


@pytest.mark.parametrize(
    ("unit", "ticks", "value"), [("%", ["0 %", "40 %"], "40.0"), ("s", ["0 s", "0.4 s"], "0.4")]
)
def test_a_chart_says_its_numbers(monkeypatch, unit, ticks, value):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, at, text, *style: written.append(text)
    )
    bar_chart({"a": [0.4, np.nan], "b": [np.nan] * 2}, ["x", "y"], title="title", unit=unit)
    numbers = [word for word in written if word[0].isdigit()]
    assert {*ticks, value} <= set(numbers) and numbers[-1] == value
    assert written.count(value) == written.count("absent") == 1 and "0.0" not in written


@pytest.mark.parametrize("value", [np.nan, 0])
def test_a_chart_of_nothing_is_still_a_chart(value):
    chart = bar_chart({"a": [value] * 3}, ["x", "y", "z"], title="nothing")
    assert chart.shape[1:] == (CHART_WIDTH, 3) and not bar_lengths(chart, BLUE)


@pytest.mark.parametrize("count", [1, 10, 25])
def test_every_series_looks_different(count):
    chart = bar_chart({f"method {i}": [1] for i in range(count)}, ["x"], title="")
    first = np.flatnonzero(has_color(chart, BLUE).sum(1) > 100)[0]
    left, right = np.flatnonzero(has_color(chart[first], BLUE))[[0, -1]]
    edge = chart[first - 1 :, left]
    colored = np.any([has_color(edge, color) for color in SERIES_COLORS], axis=0)
    tops = first + np.flatnonzero(np.diff(colored.astype(int)) == 1)
    looks = {chart[top + 2, left : right + 1].tobytes() for top in tops}
    assert len(tops) == len(looks) == count


def test_values_that_are_not_numbers_of_each_category_are_refused():
    for values in ([0.5], [0.5, -0.1]):
        with pytest.raises(AssertionError):
            bar_chart({"a": values}, ["x", "y"], title="")


def test_a_line_goes_through_its_points(monkeypatch):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, at, text, *style: written.append(text)
    )
    lines = {"a": [[(1, 0.2), (2, 0.4), (4, 0.8)], [(1, 0.1), (2, math.nan)]], "b": [[(3, 0.5)]]}
    chart = line_chart(lines, title="title", x_name="epoch", unit="%")
    assert {"0 %", "80 %", "epoch", "4", "a", "b"} <= set(written)
    plane = chart[-PLOT_HEIGHT:, 300:]  # below the legend, right of the axis's numbers
    rows, columns = np.nonzero(has_color(plane, BLUE))
    slope = np.polyfit(columns, rows, 1)[0]
    top = rows[columns > 0.9 * columns.max()].min()
    assert slope < 0 and top == rows.min()
    assert has_color(chart[-PLOT_HEIGHT:], ORANGE).any()


def test_lines_of_a_series_are_their_mean_on_a_band_of_their_range():
    def chart(*lines):
        scale = [[(1, 1), (5, 1)]]
        return line_chart({"a": lines, "b": scale}, title="", x_name="epoch")

    lower, upper = ([(x, y) for x in range(1, 6)] for y in (0.25, 0.75))
    several = chart(lower, upper, [(1, 0.5), (3, math.nan)])
    one = chart([(x, 0.5) for x in range(1, 6)])
    assert np.array_equal(has_color(several, BLUE), has_color(one, BLUE))
    rows, columns = np.nonzero((several != one).any(-1))
    assert abs(np.ptp(rows) - PLOT_HEIGHT / 2) <= 2
    assert np.allclose([columns.min(), columns.max()], blue_columns(one), atol=DOT)
    assert (np.median(several[rows, columns], axis=0) > 200).all()  # pale


@pytest.mark.parametrize(("first", "last"), [(1, 2), (1, 5), (1, 60), (9, 100)])
def test_a_line_chart_begins_at_the_first_x(monkeypatch, first, last):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, at, text, *style: written.append((text, at[0]))
    )
    line = [(x, 0.5) for x in range(first, last + 1)]
    left, right = blue_columns(line_chart({"a": [line]}, title="", x_name="epoch", unit="%"))
    at = {text: x for text, x in written if text.isdigit()}
    assert "0" not in at and abs(at[str(first)] - left) <= DOT and abs(at[str(last)] - right) <= DOT
    places = list(at.values())
    assert places == sorted(places) and min(np.diff(places)) > 2 * SMALL


@pytest.mark.parametrize("epochs", [2, 100])
@pytest.mark.parametrize("place", [0, len(SERIES_COLORS)])
def test_a_series_beyond_the_palette_is_dashed_in_plot_and_legend(place, epochs):
    names = [f"method {number}" for number in range(len(SERIES_COLORS) + 1)]
    line = [(x, 0.5) for x in range(1, epochs + 1)]
    chart = line_chart({names[place]: [line]}, title="", x_name="epoch", order=names)
    is_drawn, below_legend = has_color(chart, BLUE), EDGE + TITLE + SMALL + 4 * GAP
    for part, length in ((is_drawn[:below_legend], 36), (is_drawn[below_legend:], 600)):
        across = part[part.sum(1).argmax()]
        runs = [len([*run]) for blue, run in itertools.groupby(across) if blue]
        first, last = np.flatnonzero(across)[[0, -1]]
        assert last - first >= length
        if place == 0:
            assert len(runs) == 1
        else:
            assert len(runs) > 1 and max(runs) < 20 and sum(runs) > length / 2


def test_a_line_chart_of_nothing_is_still_a_chart():
    for lines in ([], [[]], [[(1, math.nan)]]):
        chart = line_chart({"a": lines}, title="", x_name="epoch")
        assert chart.shape[1:] == (CHART_WIDTH, 3)


def test_a_series_has_one_colour_in_charts_of_different_series():
    names = ["a", "b", "c"]
    bars = bar_chart({n: [0.5] for n in names}, ["x"], title="", order=names)
    lines = {n: [[(1, 0.5), (2, 0.2)]] for n in ("a", "c")}
    curves = line_chart(lines, title="", x_name="x", order=names)
    drawn = {color for color in SERIES_COLORS if has_color(curves, color).any()}
    assert drawn == {SERIES_COLORS[0], SERIES_COLORS[2]}
    assert all(has_color(bars, color).any() for color in SERIES_COLORS[:3])
