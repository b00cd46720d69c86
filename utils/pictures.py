"""Pictures a person looks at: panels of predictions and errors, comparisons and charts.

Every one is RGB uint8 [H, W, 3]. Colours of errors and of series stay apart under each kind of
colour blindness: Okabe & Ito's palette (2008), with a brown and a violet.
"""

import math
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.labels import CLASSES, IGNORE, PALETTE, colorize

EDGE, GAP = 14, 6  # around a sheet; between its pictures and around its words
TITLE, TEXT, SMALL, TINY = 18, 14, 13, 11  # font sizes
INK, MUTED, GRID, BAND, PAPER = ((grey, grey, grey) for grey in (25, 95, 222, 246, 255))

LABEL_WIDTH = 480  # of a picture on a sheet of images and labels
ERROR_COLOR = (213, 94, 0)
IMAGE_CONTRAST = 0.4  # of an error map's image, which fades towards white
SPELLED_OUT = str.maketrans(
    {"α": "alpha", "β": "beta", "η": "eta", "λ": "lambda", "–": "-", "—": "-", "×": "x"}
)
SERIES_COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
    (128, 64, 32),
    (96, 32, 192),
    (240, 228, 66),
    (34, 34, 34),
)
STRIPE = 3  # width of the white stripes in a bar of a series whose colour an earlier one has

CHART_WIDTH = 1400
LONGEST_COLUMN = 12  # categories; more of them stand in two columns
CATEGORY_WIDTH = 220  # at most, of a category's name
GROUP_HEIGHT = 66  # aimed at, of the bars of a category
BAR_HEIGHTS = (5, 14)  # least and most
GROUP_GAP = 14
MOST_TICKS = 10

PLOT_HEIGHT = 420  # of a line chart's plane
LINE_WIDTH, DOT = 3, 4
RANGE_OPACITY = 45  # of 255
DASH, DASH_GAP = 14, 8  # of a line of a series whose colour an earlier one has
LINE_SAMPLE = 2 * DASH + DASH_GAP  # of a line in a legend
DOT_ROOM = 36  # from a point to the next on average, from which on they have dots


class PanelRow(NamedTuple):
    """One validated image: RGB uint8 [h, w, 3], truth and prediction in train ids [H, W].

    The sizes may differ; a panel has the truth's proportions. A `note`, such as "worst: 31.2 % of
    the pixels right", stands with the name in a caption.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    note: str = ""


class ComparisonRow(NamedTuple):
    """A `PanelRow` with one prediction per method."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Sequence[np.ndarray]
    note: str = ""


def panel(rows: Sequence[PanelRow], *, title: str, width: int = 384) -> np.ndarray:
    """Image, truth and prediction side by side, a row per image, with a legend of the classes.

    Pixels without a truth are not scored, and black in both maps. `width` is that of one picture
    in pixels, heights follow from the truths. A row with a note has a caption.
    """
    sheet = _Sheet(title, columns=3, column_width=width)
    sheet.headings(("image", "truth", "prediction"))
    for row in rows:
        if row.note:
            sheet.caption(row.name, row.note)
        sheet.pictures(_colored(*_scaled(width, row.image, row.truth, row.prediction)))
    sheet.legend(_class_entries())
    return sheet.array()


def label_panel(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], *, title: str, heading: str
) -> np.ndarray:
    """Image and label side by side, for labels that nothing is compared with.

    A row is a name, RGB uint8 [h, w, 3] and train ids [H, W]; `heading` stands above the labels.
    """
    sheet = _Sheet(title, columns=2, column_width=LABEL_WIDTH)
    sheet.headings(("image", heading))
    for name, image, label in rows:
        sheet.caption(name, "")
        picture, ids = _scaled(LABEL_WIDTH, image, label)
        sheet.pictures([picture, colorize(ids)])
    sheet.legend(_class_entries(black="not labelled"))
    return sheet.array()


def error_panel(rows: Sequence[PanelRow], *, title: str, width: int = 320) -> np.ndarray:
    """The panel's pictures and the error map, each row under a caption."""
    sheet = _Sheet(title, columns=4, column_width=width)
    sheet.headings(("image", "truth", "prediction", "errors"))
    for row in rows:
        sheet.caption(row.name, row.note)
        scaled = _scaled(width, row.image, row.truth, row.prediction)
        sheet.pictures([*_colored(*scaled), error_map(*scaled)])
    sheet.legend([*_class_entries(), _Entry("wrong", ERROR_COLOR)])
    return sheet.array()


def comparison(
    rows: Sequence[ComparisonRow],
    titles: Sequence[str],
    *,
    title: str,
    width: int = 256,
    columns_per_line: int = 5,
) -> np.ndarray:
    """Image, truth and the prediction of every method under its title, for each row.

    A row that has more than `columns_per_line` pictures goes on in further lines, evenly filled.
    """
    headings = ("image", "truth", *titles)
    columns = _even_columns(len(headings), columns_per_line)
    sheet = _Sheet(title, columns=columns, column_width=width)
    for row in rows:
        assert len(row.predictions) == len(titles), (row.name, len(row.predictions), titles)
        sheet.caption(row.name, row.note)
        pictures = _colored(*_scaled(width, row.image, row.truth, *row.predictions))
        for start in range(0, len(pictures), columns):
            sheet.headings(headings[start : start + columns])
            sheet.pictures(pictures[start : start + columns])
    sheet.legend(_class_entries())
    return sheet.array()


def overlay(image: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
    """The colours of the classes over the image, half and half; both of one size."""
    colors = Image.fromarray(colorize(train_ids))
    return np.array(Image.blend(Image.fromarray(image), colors, 0.5))


def side_by_side(pictures: Mapping[str, np.ndarray], *, title: str, width: int = 320) -> np.ndarray:
    """Pictures of one size, RGB uint8 [H, W, 3], in a line, each under its name."""
    sheet = _Sheet(title, columns=len(pictures), column_width=width)
    sheet.headings([*pictures])
    height, full_width = next(iter(pictures.values())).shape[:2]
    shape = (max(1, round(height * width / full_width)), width)
    sheet.pictures([_resized_image(picture, shape) for picture in pictures.values()])
    return sheet.array()


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image in pale grey at the truth's size, wrong pixels in `ERROR_COLOR`, ignored black.

    Image RGB uint8 [h, w, 3], truth and prediction train ids [H, W]; returns RGB uint8 [H, W, 3].
    """
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    grey = np.array(Image.fromarray(_resized_image(image, truth.shape)).convert("L"), np.float32)
    pale = 255 - IMAGE_CONTRAST * (255 - grey)
    errors = np.repeat(pale.round().astype(np.uint8)[..., None], 3, axis=2)
    errors[truth != prediction] = ERROR_COLOR
    errors[truth == IGNORE] = PALETTE[IGNORE]
    return errors


def bar_chart(
    series: Mapping[str, Sequence[float | None]],
    categories: Sequence[str],
    *,
    title: str,
    unit: str = "%",
    order: Sequence[str] = (),
) -> np.ndarray:
    """A bar per category and series, grouped by category; NaN and None are absent: a dash. With
    `order`, names of which these are some, a series has one colour in several charts.

    Values are at least 0 and drawn to one scale from 0; those in "%" are given as 0 to 1. Bars of
    few series are thick enough to have their values behind them.
    """
    values = np.array([*series.values()], float) * (100 if unit == "%" else 1)
    assert values.shape == (len(series), len(categories)) and not (values < 0).any(), values
    entries = _series_entries(series, order)
    sheet = _Sheet(title, columns=1, column_width=CHART_WIDTH - 2 * EDGE)
    sheet.legend(entries)
    axes = _Axes.around(values, categories)
    draw = sheet.block(axes.bottom(axes.groups) + SMALL + 2 * GAP + EDGE)
    for start in range(0, len(categories), axes.groups):
        part = slice(start, start + axes.groups)
        axes.draw_grid(draw, categories[part], unit)
        for group, of_category in enumerate(values.T[part]):
            axes.draw_group(draw, group, of_category, entries)
        axes = axes.next_column()
    return sheet.array()


def line_chart(
    series: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    *,
    title: str,
    x_name: str,
    unit: str = "",
    order: Sequence[str] = (),
) -> np.ndarray:
    """A line per series, through points (x, y); of a series of several lines it is their mean, on
    a pale band of their range. `order` as for `bar_chart`.

    x are whole numbers, drawn from the first one on; y are drawn to one scale from 0, and those in
    "%" are given as 0 to 1. Both are at least 0. A point that is not finite is left out.
    """
    curves = [_Curve.of(lines, 100 if unit == "%" else 1) for lines in series.values()]
    points = [point for curve in curves for point in (*curve.low, *curve.high)]
    assert series and all(value >= 0 for point in points for value in point), points
    entries = _series_entries(series, order)
    sheet = _Sheet(title, columns=1, column_width=CHART_WIDTH - 2 * EDGE)
    sheet.legend(entries, lines=True)
    plane = _Plane.around(points)
    draw = sheet.block(plane.bottom + 2 * SMALL + 3 * GAP + EDGE)
    plane.draw_grid(draw, x_name, unit)
    for entry, curve in zip(entries, curves, strict=True):
        plane.draw_band(draw, curve, entry)
    for entry, curve in zip(entries, curves, strict=True):
        plane.draw_line(draw, curve.mean, entry)
    return sheet.array()


# ------------------------------------------------------------------------------- images and classes


def _scaled(
    width: int, image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray
) -> list[np.ndarray]:
    """Image, truth and predictions, all `width` pixels wide and of the truth's proportions."""
    shape = (max(1, round(truth.shape[0] * width / truth.shape[1])), width)
    return [
        _resized_image(image, shape),
        *(_resized_ids(ids, shape) for ids in (truth, *predictions)),
    ]


def _colored(image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray) -> list[np.ndarray]:
    """All as RGB, black where there is no truth; everything of one size."""
    maps = (np.where(truth == IGNORE, IGNORE, ids) for ids in (truth, *predictions))
    return [image, *(colorize(ids) for ids in maps)]


def _resized_image(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))


def _resized_ids(ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(
        Image.fromarray(ids.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)
    )


# --------------------------------------------------------------------------------- sheets and words


class _Entry(NamedTuple):
    """What a legend names: a colour, plain or with white stripes `spacing` widths apart, which are
    `spacing` gaps between the dashes of a line."""

    name: str
    color: tuple[int, int, int]
    spacing: int = 0

    def fill(self, draw: ImageDraw.ImageDraw, left: int, top: int, width: int, height: int) -> None:
        right, bottom = left + width - 1, top + height - 1
        draw.rectangle((left, top, right, bottom), self.color)
        if self.spacing:
            for x in range(left + STRIPE, right + 1, STRIPE * (self.spacing + 1)):
                draw.rectangle((x, top + 1, min(x + STRIPE - 1, right), bottom - 1), PAPER)

    def line(self, draw: ImageDraw.ImageDraw, places: Sequence[tuple[int, int]]) -> None:
        """Joins two or more places."""
        gap = self.spacing * DASH_GAP
        for dash in _dashes(places, DASH, gap) if gap else [places]:
            draw.line(dash, self.color, LINE_WIDTH)


def _class_entries(black: str = "not scored") -> list[_Entry]:
    not_scored = _Entry(black, tuple(PALETTE[IGNORE].tolist()))
    return [*(_Entry(c.name, c.color) for c in CLASSES), not_scored]


def _series_entries(series: Iterable[str], order: Sequence[str]) -> list[_Entry]:
    """An entry of each series, coloured by its place among all of `order`, else among these."""
    names = list(series)
    places = {name: place for place, name in enumerate(order or names)}
    return [_series_entry(places[name], name) for name in names]


def _series_entry(index: int, name: str) -> _Entry:
    cycle, color = divmod(index, len(SERIES_COLORS))
    return _Entry(name, SERIES_COLORS[color], cycle)


def _dashes(
    places: Sequence[tuple[int, int]], length: int, gap: int
) -> Iterator[list[tuple[float, float]]]:
    """The places of each dash of a line, in pixels along it."""
    points = np.array(places, float)
    along = np.cumsum([0, *np.hypot(*np.diff(points, axis=0).T)])
    for start in np.arange(0, along[-1], length + gap):
        end = min(start + length, along[-1])
        stops = [start, *along[(along > start) & (along < end)], end]
        yield [tuple(np.interp(stop, along, axis) for axis in points.T) for stop in stops]


class _Sheet:
    """Paper that grows downwards, in columns, under a title."""

    def __init__(self, title: str, *, columns: int, column_width: int):
        self.column_width = column_width
        self.inside = columns * (column_width + GAP) - GAP
        self._blocks: list[Image.Image] = []
        draw = self.block(EDGE + TITLE + 2 * GAP)
        _write(draw, (EDGE, EDGE), title, TITLE, self.inside)

    def block(self, height: int) -> ImageDraw.ImageDraw:
        """Draws on new paper below all that is there."""
        self._blocks.append(Image.new("RGB", (self.inside + 2 * EDGE, height), PAPER))
        return ImageDraw.Draw(self._blocks[-1], "RGBA")  # mixes what is not opaque with the paper

    def caption(self, name: str, note: str) -> None:
        """A row's name and note under a line across the sheet."""
        draw, y = self.block(TEXT + 4 * GAP), 5 * GAP // 2
        draw.line((EDGE, GAP, EDGE + self.inside - 1, GAP), GRID)
        end = _write(draw, (EDGE, y), name, TEXT, self.inside // 2 if note else self.inside)
        x = end + 2 * GAP
        _write(draw, (x, y), note, TEXT, EDGE + self.inside - x, MUTED)

    def headings(self, texts: Sequence[str]) -> None:
        draw = self.block(SMALL + 2 * GAP)
        for column, text in enumerate(texts):
            _write(draw, (self._left(column), GAP // 2), text, SMALL, self.column_width)

    def pictures(self, pictures: Sequence[np.ndarray]) -> None:
        """One line of RGB uint8 [H, column width, 3]."""
        self.block(len(pictures[0]) + GAP)
        for column, picture in enumerate(pictures):
            self._blocks[-1].paste(Image.fromarray(picture), (self._left(column), 0))

    def legend(self, entries: Sequence[_Entry], *, lines: bool = False) -> None:
        """Names under the colours of areas, or of lines."""
        sample = LINE_SAMPLE if lines else SMALL
        widest = max(_font(SMALL).getlength(_ascii(entry.name)) for entry in entries)
        pitch = min(sample + math.ceil(widest) + 4 * GAP, self.inside)
        columns = _even_columns(len(entries), self.inside // pitch)
        line_height, middle = SMALL + GAP, SMALL // 2
        draw = self.block(-(-len(entries) // columns) * line_height + EDGE)
        for index, entry in enumerate(entries):
            line, column = divmod(index, columns)
            x, y = EDGE + column * pitch, GAP + line * line_height
            if lines:
                entry.line(draw, [(x, y + middle), (x + sample, y + middle)])
            else:
                entry.fill(draw, x, y, sample, SMALL)
            place = (x + sample + GAP, y + middle)
            _write(draw, place, entry.name, SMALL, pitch - sample - 2 * GAP, anchor="lm")

    def array(self) -> np.ndarray:
        return np.concatenate([np.array(block) for block in self._blocks])

    def _left(self, column: int) -> int:
        return EDGE + column * (self.column_width + GAP)


def _even_columns(count: int, most: int) -> int:
    """Columns that fill the fewest lines of at most `most` as evenly as can be."""
    lines = -(-count // most)
    return -(-count // lines)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    width: int,
    color: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> int:
    """Writes, with the middle left out where the text is wider than `width`; the x it ends at.

    `place` is where Pillow's `anchor` of the text is.
    """
    font, text = _font(size), _ascii(text)
    shown, keep = text, len(text)
    while keep and font.getlength(shown) > width:
        keep -= 1
        shown = f"{text[: -(-keep // 2)]}…{text[len(text) - keep // 2 :]}"
    draw.text(place, shown, color, font, anchor)
    return place[0] + math.ceil(font.getlength(shown))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _ascii(text: str) -> str:
    """The text in characters that Pillow's own font has: β becomes beta, é becomes e."""
    decomposed = unicodedata.normalize("NFKD", text.translate(SPELLED_OUT))
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return letters.encode("ascii", "replace").decode()


# -------------------------------------------------------------------------------------- bar charts


class _Axes(NamedTuple):
    """Where a column of groups of bars lies, in pixels of its block."""

    edge: int  # where the categories' names may start
    left: int  # where the bars start: a value of 0
    right: int  # the largest tick
    end: int  # of the space for the values behind the bars
    top: int
    bar: int  # height
    group: int  # height, with the gap to the next one
    groups: int  # at most
    step: float  # between two ticks
    ticks: int  # beside 0

    @classmethod
    def around(cls, values: np.ndarray, categories: Sequence[str]) -> "_Axes":
        """The first column for values [series, categories], NaN where there is none."""
        columns = 1 if len(categories) <= LONGEST_COLUMN else 2
        end = EDGE + (CHART_WIDTH - EDGE) // columns - EDGE
        widest = max(_font(TEXT).getlength(_ascii(category)) for category in categories)
        bar = int(np.clip(GROUP_HEIGHT // len(values) - 1, *BAR_HEIGHTS))
        step, ticks = _ticks(values[~np.isnan(values)].max(initial=0))
        return cls(
            edge=EDGE,
            left=EDGE + min(math.ceil(widest), CATEGORY_WIDTH) + 3 * GAP,
            right=end - 3 * TINY - 2 * GAP,
            end=end,
            top=SMALL + 2 * GAP,
            bar=bar,
            group=len(values) * (bar + 1) - 1 + GROUP_GAP,
            groups=-(-len(categories) // columns),
            step=step,
            ticks=ticks,
        )

    def next_column(self) -> "_Axes":
        shift = self.end + EDGE - self.edge
        moved = {name: getattr(self, name) + shift for name in ("edge", "left", "right", "end")}
        return self._replace(**moved)

    def bottom(self, groups: int) -> int:
        return self.top + groups * self.group

    def length(self, value: float) -> int:
        return round((self.right - self.left) * value / (self.step * self.ticks))

    def draw_grid(self, draw: ImageDraw.ImageDraw, categories: Sequence[str], unit: str) -> None:
        """Categories on alternating bands, and lines with numbers above and below them."""
        bottom = self.bottom(len(categories))
        for group, category in enumerate(categories):
            y = self.top + group * self.group
            if group % 2 == 0:
                draw.rectangle((self.edge, y, self.end - 1, y + self.group - 1), BAND)
            place = (self.left - 2 * GAP, y + self.group // 2)
            _write(draw, place, category, TEXT, CATEGORY_WIDTH, anchor="rm")
        for tick in range(self.ticks + 1):
            x = self.left + self.length(tick * self.step)
            draw.line((x, self.top, x, bottom - 1), GRID if tick else MUTED)
            text = f"{tick * self.step:g} {unit}"
            for y, anchor in ((self.top - GAP, "mb"), (bottom + GAP, "mt")):
                _write(draw, (x, y), text, SMALL, CHART_WIDTH, MUTED, anchor)

    def draw_group(
        self,
        draw: ImageDraw.ImageDraw,
        group: int,
        values: np.ndarray,
        entries: Sequence[_Entry],
    ) -> None:
        """One bar per value; one word where all are absent."""
        top, x = self.top + group * self.group + GROUP_GAP // 2, self.left + 1
        if np.isnan(values).all():
            middle = self.top + group * self.group + self.group // 2
            _write(draw, (x + GAP, middle), "absent", SMALL, CHART_WIDTH, MUTED, "lm")
            return
        for index, (value, entry) in enumerate(zip(values, entries, strict=True)):
            y = top + index * (self.bar + 1)
            if np.isnan(value):
                draw.line((x + GAP, y + self.bar // 2, x + 2 * GAP, y + self.bar // 2), MUTED)
                continue
            length = self.length(value)
            if length:
                entry.fill(draw, x, y, length, self.bar)
            if self.bar >= TINY - 1:
                place = (x + length + GAP, y + self.bar // 2)
                _write(draw, place, f"{value:.1f}", TINY, CHART_WIDTH, MUTED, "lm")


# ------------------------------------------------------------------------------------- line charts


class _Curve(NamedTuple):
    """Points (x, y) of several lines as one: their mean, least and most at each x, over those that
    have a point there."""

    mean: list[tuple[float, float]]
    low: list[tuple[float, float]]
    high: list[tuple[float, float]]

    @classmethod
    def of(cls, lines: Iterable[Sequence[tuple[float, float]]], factor: float) -> "_Curve":
        """Of what is finite, with y times the factor."""
        found: dict[float, list[float]] = {}
        for x, y in (point for line in lines for point in line):
            if math.isfinite(y):
                found.setdefault(x, []).append(factor * y)
        points = sorted(found.items())
        return cls(*([(x, of(ys)) for x, ys in points] for of in (statistics.fmean, min, max)))


class _Plane(NamedTuple):
    """Where the plane of a line chart lies, in pixels of its block, and its scales."""

    left: int
    right: int
    top: int
    bottom: int
    x_first: float
    x_step: float  # between two ticks
    x_last: float
    y_step: float
    y_ticks: int  # beside 0

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> "_Plane":
        largest = [max((point[axis] for point in points), default=0) for axis in (0, 1)]
        (x_step, x_ticks), (y_step, y_ticks) = map(_ticks, largest)
        if x_step < 1:  # x are whole numbers
            x_step, x_ticks = 1, math.ceil(largest[0])
        x_first = min((x for x, _ in points), default=0)
        return cls(
            left=EDGE + 5 * SMALL,
            right=CHART_WIDTH - 3 * EDGE,
            top=SMALL,
            bottom=SMALL + PLOT_HEIGHT,
            x_first=x_first,
            x_step=x_step,
            x_last=max(x_ticks * x_step, x_first + 1),
            y_step=y_step,
            y_ticks=y_ticks,
        )

    def place(self, x: float, y: float) -> tuple[int, int]:
        across = (x - self.x_first) / (self.x_last - self.x_first)
        up = y / (self.y_step * self.y_ticks)
        return (
            round(self.left + (self.right - self.left) * across),
            round(self.bottom - (self.bottom - self.top) * up),
        )

    def draw_grid(self, draw: ImageDraw.ImageDraw, x_name: str, unit: str) -> None:
        for tick in range(self.y_ticks + 1):
            value = tick * self.y_step
            _, y = self.place(self.x_first, value)
            draw.line((self.left, y, self.right, y), GRID if tick else MUTED)
            text = f"{value:g} {unit}".rstrip()
            _write(draw, (self.left - GAP, y), text, SMALL, CHART_WIDTH, MUTED, "rm")
        for value in self._x_values():
            x, _ = self.place(value, 0)
            color = MUTED if value == self.x_first else GRID
            draw.line((x, self.top, x, self.bottom), color)
            place = (x, self.bottom + GAP)
            _write(draw, place, f"{value:g}", SMALL, CHART_WIDTH, MUTED, "mt")
        middle = ((self.left + self.right) // 2, self.bottom + SMALL + 2 * GAP)
        _write(draw, middle, x_name, SMALL, CHART_WIDTH, MUTED, "mt")

    def _x_values(self) -> list[float]:
        """The first, and the multiples of the step that leave room for it."""
        multiples = np.arange(0, self.x_last + self.x_step / 2, self.x_step)
        return [self.x_first, *multiples[multiples >= self.x_first + self.x_step / 2].tolist()]

    def draw_band(self, draw: ImageDraw.ImageDraw, curve: _Curve, entry: _Entry) -> None:
        """The range, where there is one; it lets through what lies below it."""
        if curve.low != curve.high:
            outline = [*curve.low, *reversed(curve.high)]
            draw.polygon([self.place(x, y) for x, y in outline], (*entry.color, RANGE_OPACITY))

    def draw_line(
        self, draw: ImageDraw.ImageDraw, line: Sequence[tuple[float, float]], entry: _Entry
    ) -> None:
        """The points joined, and a dot for each where that leaves the line to be seen."""
        places = [self.place(x, y) for x, y in line]
        if len(places) > 1:
            entry.line(draw, places)
        are_sparse = len(places) * DOT_ROOM <= self.right - self.left
        for x, y in places if are_sparse else ():
            draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), entry.color)


def _ticks(largest: float) -> tuple[float, int]:
    """A round step, and how many of it reach the largest value: at most `MOST_TICKS`."""
    if largest == 0:
        return 1, 1
    power = 10.0 ** math.floor(math.log10(largest / MOST_TICKS))
    step = next(s * power for s in (1, 2, 5, 10) if s * power * MOST_TICKS >= largest)
    return step, math.ceil(largest / step)
