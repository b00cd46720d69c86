"""Line charts of the page: places in a drawing of fixed size, which the template turns into SVG."""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from utils.pictures.charts import LineChart
from utils.pictures.looks import Look

WIDTH, HEIGHT = 560, 288
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 42
"""Room around the plot for the axes."""

TICKS = 5
NICE = (1, 2, 2.5, 5, 10)


def svg_chart(chart: LineChart, looks: Mapping[str, Look]) -> dict[str, Any]:
    """Return the chart's lines, bands and axes as places in a drawing of WIDTH x HEIGHT."""
    every = [y for by_x in chart.points.values() for ys in by_x.values() for y in ys]
    across = sorted({x for by_x in chart.points.values() for x in by_x})
    y_ticks = ticks(min(every), max(every))
    low, high = min(*every, *y_ticks), max(*every, *y_ticks)
    first, last = across[0], across[-1]

    def right(x: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / ((last - first) or 1):.1f}"

    def down(y: float) -> str:
        return f"{TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / ((high - low) or 1):.1f}"

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{right(x)},{down(y)}" for x, y in points)

    unit = " %" if chart.in_percent else ""
    series = []
    for name, by_x in chart.points.items():
        means = [(x, statistics.fmean(ys)) for x, ys in by_x.items()]
        upper, lower = ([(x, of(ys)) for x, ys in by_x.items()] for of in (max, min))
        several = any(len(ys) > 1 for ys in by_x.values())
        series.append(
            {
                "name": name,
                "look": looks[name],
                "dashes": " ".join(f"{2 * length:g}" for length in looks[name].dashes),
                "line": path(means),
                "dots": [(right(x), down(y)) for x, y in means],
                "band": path([*upper, *lower[::-1]]) if several else "",
                "last": f"{means[-1][1]:.1f}{unit}",
            }
        )
    return {
        "title": chart.title,
        "x_name": chart.x_name,
        "series": series,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "y_ticks": [{"y": down(y), "text": f"{y:g}{unit}"} for y in y_ticks],
        "x_ticks": [
            {"x": right(x), "text": f"{x:g}"}
            for x in ticks(first, last)
            if x.is_integer() and first <= x <= last
        ],
    }


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers that span the values, a handful of them."""
    rough = (high - low or abs(high) or 1) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in NICE if power * nice >= rough * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(start, end + 1)]
