"""Heat maps and line charts, drawn by matplotlib: as PNG for a screen and as SVG for a paper."""

import io
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.pictures.looks import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

MUTED, GRID, ABSENT_CELL = "#5f5f5f", "#e4e4e4", "#f4f4f4"
SHADES = "Blues"
"""Matplotlib's colour map of a heat map: one hue, from white on, so that it also prints in grey."""

WIDTH, PIXELS_PER_INCH = 9, 160  # inches, as the heights below
LINE_CHART_HEIGHT, LEGEND_LINE = 3, 0.2
CELL_HEIGHT, HEAD_HEIGHT = 0.24, 0.75
TITLE_SIZE, FONT_SIZE, LEGEND_SIZE, NUMBER_SIZE = 11, 9, 8, 7.5  # points
TITLE_LETTERS, LEGEND_LETTERS, SAMPLE_LETTERS = 100, 130, 7  # per line; width of a colour sample

MOST_DOTS = 25  # points of a line that are marked by dots
RANGE_OPACITY = 0.15
DARK_SHADE = 0.55
"""Share of the largest value from which on a cell's number is white."""

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
    "hatch.color": "#d0d0d0",
    "hatch.linewidth": 0.6,
    "legend.borderpad": 0,
    "legend.columnspacing": 1.5,
    "legend.fontsize": LEGEND_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "svg.fonttype": "none",  # text remains text that can be searched and edited
    "svg.hashsalt": "charts",  # instead of random names inside the file
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}

Looks = Mapping[str, Look]


class HeatMap(NamedTuple):
    """A table of shares 0 to 1 as shaded cells with numbers, a row per series.

    None and NaN are absent: their cells are hatched and hold a dash, so that they are no zeros.
    """

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
    def height(self) -> float:
        return HEAD_HEIGHT + CELL_HEIGHT * len(self.names)

    def draw(self, figure: "FigureBase", looks: Looks) -> None:
        """Draw a cell per series and category, shaded from 0 to the largest value."""
        from matplotlib.patches import Rectangle  # late, as in `chart_files`

        axes = figure.subplots()
        values = np.array([*self.percents.values()])
        top = max(np.nanmax(values), 1e-9)
        axes.imshow(values, cmap=SHADES, vmin=0, vmax=1.15 * top, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isnan(value):
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, hatch="////", fc=ABSENT_CELL, linewidth=0))
            color = "white" if value > DARK_SHADE * top else "black"
            text = axes.text(column, row, cell_text(value), ha="center", va="center")
            text.set(color=color, fontsize=NUMBER_SIZE)
        axes.set_xticks(range(len(self.categories)), self.categories)
        axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor", fontsize=LEGEND_SIZE)
        axes.set_yticks(range(len(values)), self.names)
        axes.tick_params(axis="y", labelsize=LEGEND_SIZE, labelcolor="black", pad=8)
        for row, name in enumerate(self.names):
            mark = Rectangle((-0.68, row - 0.3), 0.09, 0.6, color=looks[name].ink, linewidth=0)
            axes.add_patch(mark).set_clip_on(False)
        for place in range(1, max(values.shape)):
            axes.axhline(place - 0.5, color="white", linewidth=1)
            axes.axvline(place - 0.5, color="white", linewidth=3 if place == 1 else 1)
        axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(len(values) - 0.5, -0.5))
        axes.spines[:].set_visible(False)


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
        """Draw the lines from the first x to the last; the axes fit the values."""
        axes = figure.subplots()
        for name, points in self.points.items():
            color, dashes = looks[name].ink, looks[name].dashes
            axes.plot(
                [*points],
                [statistics.fmean(ys) for ys in points.values()],
                color=color,
                linestyle=(0, dashes) if dashes else "-",
                marker="o" if len(points) <= MOST_DOTS else "",
                markersize=3.5,
                linewidth=1.4,
                label=name,
                clip_on=False,
            )
            low, high = ([of(ys) for ys in points.values()] for of in (min, max))
            axes.fill_between([*points], low, high, color=color, alpha=RANGE_OPACITY, linewidth=0)
        axes.margins(x=0)
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(0, bottom), top)
        axes.grid()
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel(self.x_name)
        if self.in_percent:
            axes.yaxis.set_major_formatter("{x:g} %")


def cell_text(percent: float | None) -> str:
    """Return a share in % for a cell of a heat map: "–" where it is absent, "0" where it is 0."""
    if percent is None or math.isnan(percent):
        return "–"
    return f"{percent:.0f}" if percent == 0 or percent >= 99.95 else f"{percent:.1f}"


def chart_files(charts: Sequence[HeatMap | LineChart], looks: Looks) -> dict[str, bytes]:
    """Return the charts below one another, as one file for each of the suffixes .png and .svg.

    A chart that draws no series is left out; no chart, no files.
    """
    charts = [chart for chart in charts if chart.names]
    if not charts:
        return {}
    # Matplotlib takes a second to import. Commands that draw no chart do without it.
    import matplotlib.style
    from matplotlib.figure import Figure

    legends = [chart.names if isinstance(chart, LineChart) else [] for chart in charts]
    columns = [_legend_columns(names) for names in legends]
    heights = [
        chart.height + LEGEND_LINE * (2 + len(chart.title) / TITLE_LETTERS + len(names) / n)
        for chart, names, n in zip(charts, legends, columns, strict=True)
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
