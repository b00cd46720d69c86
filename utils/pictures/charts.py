"""Bar and line charts, drawn by matplotlib: as PNG for a screen and as SVG for a paper.

The colours of the series stay apart under each kind of colour blindness: Okabe & Ito's palette
(2008), with a brown and a violet.
"""

import io
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

SERIES_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9"),
    *("#cc79a7", "#804020", "#6020c0", "#f0e442", "#222222"),
)
MUTED, GRID, BAND = "#5f5f5f", "#dedede", "#f6f6f6"

WIDTH, PIXELS_PER_INCH = 9, 160  # inches, as the heights below
LINE_CHART_HEIGHT, LEGEND_LINE = 3, 0.2
THIN_BAR, NUMBERED_BAR, LEAST_GROUP = 0.05, 0.11, 0.25
TITLE_SIZE, FONT_SIZE, LEGEND_SIZE, NUMBER_SIZE = 11, 9, 8, 7  # points
TITLE_LETTERS, LEGEND_LETTERS, SAMPLE_LETTERS = 100, 130, 7  # per line; width of a colour sample

MOST_NUMBERED = 4  # series of a bar chart that has its values behind the bars
MOST_DOTS = 25  # points of a line that are marked by dots
GROUP_SHARE, BAR_SHARE = 0.8, 0.85  # of a category that has bars, of a bar's place that is filled
RANGE_OPACITY = 0.18

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.dpi": PIXELS_PER_INCH,
    "font.size": FONT_SIZE,
    "grid.color": GRID,
    "hatch.color": "white",
    "legend.borderpad": 0,
    "legend.columnspacing": 1.5,
    "legend.fontsize": LEGEND_SIZE,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text remains text that can be searched and edited
    "svg.hashsalt": "charts",  # instead of random names inside the file
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}

Looks = Mapping[str, tuple[str, int]]
"""Colour of each series, and how many earlier series have the same colour."""


class BarChart(NamedTuple):
    """A chart of a bar per category and series, of shares 0 to 1; None and NaN are absent."""

    title: str
    series: Mapping[str, Sequence[float | None]]
    categories: Sequence[str]

    @property
    def percents(self) -> dict[str, np.ndarray]:
        """Return the values of each series that has any, in %, NaN where absent."""
        percents = {name: 100 * np.array(row, float) for name, row in self.series.items()}
        assert all(len(row) == len(self.categories) for row in percents.values()), percents
        return {name: row for name, row in percents.items() if not np.isnan(row).all()}

    @property
    def names(self) -> list[str]:
        """Return the series that are drawn."""
        return [*self.percents]

    @property
    def groups(self) -> int:
        """Return the number of categories in the first of two columns."""
        return math.ceil(len(self.categories) / 2)

    @property
    def height(self) -> float:
        count = len(self.names)
        bars = count * (NUMBERED_BAR if count <= MOST_NUMBERED else THIN_BAR)
        return 0.5 + self.groups * max(LEAST_GROUP, bars / GROUP_SHARE)

    def draw(self, figure: "FigureBase", looks: Looks) -> None:
        """Draw two columns of groups of bars, one group per category, to one scale."""
        for column, axes in enumerate(figure.subplots(1, 2, sharex=True)):
            part = slice(column * self.groups, (column + 1) * self.groups)
            names = self.categories[part]
            for group in range(0, len(names), 2):
                axes.axhspan(group - 0.5, group + 0.5, color=BAND, zorder=0)
            _draw_bars(axes, {name: row[part] for name, row in self.percents.items()}, looks)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(self.groups - 0.5, -0.5)
            axes.grid(axis="x")
            axes.tick_params(labeltop=True)
            axes.locator_params(axis="x", nbins=6)
            axes.xaxis.set_major_formatter("{x:g} %")


class LineChart(NamedTuple):
    """A chart of a line per series through points (x, y); x are whole numbers.

    Several lines of a series are drawn as their mean on a pale band of their range. Points that are
    not finite are left out. With `in_percent`, y are shares 0 to 1.
    """

    title: str
    series: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
    x_name: str
    in_percent: bool = False

    @property
    def points(self) -> dict[str, dict[float, list[float]]]:
        """Return the y at each x, in order, of each series that has any."""
        found: dict[str, dict[float, list[float]]] = {}
        for name, lines in self.series.items():
            for x, y in sorted(point for line in lines for point in line):
                if math.isfinite(y):
                    at = found.setdefault(name, {}).setdefault(x, [])
                    at.append(100 * y if self.in_percent else y)
        return found

    @property
    def names(self) -> list[str]:
        """Return the series that are drawn; none where no series has two points."""
        points = self.points
        return [*points] if any(len(ys) > 1 for ys in points.values()) else []

    @property
    def height(self) -> float:
        return LINE_CHART_HEIGHT

    def draw(self, figure: "FigureBase", looks: Looks) -> None:
        """Draw the lines from the first x to the last, and from y = 0."""
        axes = figure.subplots()
        for name, points in self.points.items():
            color, repeats = looks[name]
            axes.plot(
                [*points],
                [statistics.fmean(ys) for ys in points.values()],
                color=color,
                linestyle=(0, (4, 2 * repeats)) if repeats else "-",
                marker="o" if len(points) <= MOST_DOTS else "",
                markersize=4,
                label=name,
                clip_on=False,
            )
            low, high = ([of(ys) for ys in points.values()] for of in (min, max))
            axes.fill_between([*points], low, high, color=color, alpha=RANGE_OPACITY, linewidth=0)
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel(self.x_name)
        if self.in_percent:
            axes.yaxis.set_major_formatter("{x:g} %")


def chart_files(charts: Sequence[BarChart | LineChart], order: Sequence[str]) -> dict[str, bytes]:
    """Return the charts below one another, as one file for each of the suffixes .png and .svg.

    A chart that draws no series is left out; no chart, no files. `order` names all series, so that
    a series has one look in several calls.
    """
    charts = [chart for chart in charts if chart.names]
    if not charts:
        return {}
    # Matplotlib takes a second to import. Commands that draw no chart do without it.
    import matplotlib.style
    from matplotlib.figure import Figure

    places = (divmod(place, len(SERIES_COLORS)) for place in range(len(order)))
    looks = {n: (SERIES_COLORS[color], c) for n, (c, color) in zip(order, places, strict=True)}
    columns = [_legend_columns(chart.names) for chart in charts]
    heights = [
        chart.height + LEGEND_LINE * (2 + len(chart.title) / TITLE_LETTERS + len(chart.names) / n)
        for chart, n in zip(charts, columns, strict=True)
    ]
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure((WIDTH, sum(heights)))
        parts = figure.subfigures(len(charts), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, chart, ncols in zip(parts, charts, columns, strict=True):
            chart.draw(part, looks)
            handles, names = part.axes[0].get_legend_handles_labels()
            part.legend(
                handles,
                names,
                ncols=ncols,
                loc="outside upper left",
                title=textwrap.fill(chart.title, TITLE_LETTERS),
                title_fontsize=TITLE_SIZE,
                alignment="left",
            )
        return {".png": _encoded(figure, "png"), ".svg": _encoded(figure, "svg", Date=None)}


def _draw_bars(axes: "Axes", percents: Mapping[str, np.ndarray], looks: Looks) -> None:
    """Draw the bars, and words where a value is absent; of few series the values, too."""
    absent = np.isnan([*percents.values()])
    pitch = GROUP_SHARE / len(percents)
    notes = [(0.0, float(group), "absent") for group in np.flatnonzero(absent.all(axis=0))]
    for index, (name, row) in enumerate(percents.items()):
        places = np.arange(len(row)) - GROUP_SHARE / 2 + (index + 0.5) * pitch
        color, repeats = looks[name]
        hatch = "///" * repeats
        axes.barh(places, row, BAR_SHARE * pitch, color=color, hatch=hatch, label=name)
        for place, value, nobody in zip(places, row, absent.all(axis=0), strict=True):
            if np.isnan(value) and not nobody:
                notes.append((0.0, place, "–"))
            elif not np.isnan(value) and len(percents) <= MOST_NUMBERED:
                notes.append((value, place, f"{value:.1f}"))
    style = {"color": MUTED, "fontsize": NUMBER_SIZE, "verticalalignment": "center"}
    for x, y, text in notes:
        axes.annotate(text, (x, y), (3, 0), textcoords="offset points", **style)


def _legend_columns(names: Sequence[str]) -> int:
    """Return the most columns, each as wide as its longest name, that fit into a legend."""
    widths = {
        count: sum(max(map(len, part)) + SAMPLE_LETTERS for part in np.array_split(names, count))
        for count in range(1, len(names) + 1)
    }
    return max((count for count, width in widths.items() if width <= LEGEND_LETTERS), default=1)


def _encoded(figure: "Figure", kind: str, **metadata: None) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()
