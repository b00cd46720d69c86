"""Charts as their files show them: the SVG holds text as text and shapes as coordinates."""

import itertools
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from datasets.labels import CLASS_NAMES
from tests.support.helpers import chart_texts
from utils.pictures.charts import SERIES_COLORS, BarChart, LineChart, chart_files

BLUE, ORANGE = SERIES_COLORS[:2]
NAMES = ["a", "b", "c"]


def drawn(*charts, order=NAMES):
    """Return the SVG of charts."""
    return chart_files(charts, order)[".svg"].decode()


def shapes(svg, style):
    """Return the corners [N, 2] of the paths in the plot with these words in their style."""
    plots = (
        group
        for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
        if group.get("id", "").startswith("axes_")
    )
    paths = itertools.chain.from_iterable(
        plot.iter("{http://www.w3.org/2000/svg}path") for plot in plots
    )
    return [
        np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d")), float)
        for path in paths
        if style in path.get("style", "") and path.get("d").count("L")
    ]


def bar_lengths(svg, color):
    return [np.ptp(corners[:, 0]) for corners in shapes(svg, f"fill: {color}")]


def line(svg, color):
    (points,) = shapes(svg, f"fill: none; stroke: {color}")
    return points


def test_the_bars_of_all_classes_are_proportional_to_their_values():
    values = np.linspace(0.05, 0.95, len(CLASS_NAMES))
    svg = drawn(BarChart("IoU", {"a": [*values], "b": [*values[::-1]]}, CLASS_NAMES))
    for color, expected in ((BLUE, values), (ORANGE, values[::-1])):
        lengths = np.array(bar_lengths(svg, color))
        assert np.allclose(lengths, lengths.sum() / expected.sum() * expected, atol=1e-3)
    assert {"IoU", "a", "b", *CLASS_NAMES, "80 %", "95.0"} <= set(chart_texts(svg))


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_an_absent_value_has_no_bar_and_is_no_zero(absent):
    svg = drawn(BarChart("", {"a": [0.5, absent, 0, absent], "b": [0.2, 0.3, 0.4, absent]}, "wxyz"))
    assert len(bar_lengths(svg, BLUE)) == 2 and len(bar_lengths(svg, ORANGE)) == 3
    texts = chart_texts(svg)
    assert texts.count("–") == texts.count("absent") == texts.count("0.0") == 1


def test_a_line_goes_through_its_points():
    points = [(1, 0.2), (2, 0.4), (3, float("nan")), (4, 0.8)]
    svg = drawn(LineChart("title", {"a": [points], "b": [[(3, 0.5)]]}, "epoch", in_percent=True))
    across, up = line(svg, BLUE).T
    assert np.allclose(np.diff(across)[1], 2 * np.diff(across)[0])
    assert np.allclose(np.diff(up)[1], 2 * np.diff(up)[0]) and up[0] > up[-1]
    assert {"title", "a", "b", "epoch", "1", "4", "80 %"} <= set(chart_texts(svg))


def test_lines_of_a_series_are_their_mean_on_a_band_of_their_range():
    lower, upper = ([(x, y) for x in range(1, 6)] for y in (0.25, 0.75))
    middle = [(x, 0.5) for x in range(1, 6)]
    svg = drawn(LineChart("", {"a": [lower, upper], "b": [upper], "c": [middle]}, "epoch"))
    mean, top, middle = (line(svg, color)[:, 1] for color in SERIES_COLORS[:3])
    assert np.allclose(mean, middle)
    (band,) = re.findall(
        rf'd="([^"]+)"/>\s*</defs>\s*<g .*>\s*<use .* y="(\S+)" .*{BLUE}; .*0.18', svg
    )
    heights = float(band[1]) + np.array(re.findall(r"[ML] \S+ (\S+)", band[0]), float)
    assert np.isclose(heights.min(), top[0])
    assert np.isclose(heights.max() - mean[0], mean[0] - top[0])


def test_every_series_looks_different():
    names = [f"method {number}" for number in range(25)]
    bars = drawn(BarChart("", {name: [1] for name in names}, ["x"]), order=names)
    assert len(set(re.findall(r"fill: (?:#\w+|url\(#\w+\))(?=; stroke)?", bars))) >= 25
    curves = LineChart("", {name: [[(1, 1), (2, 2)]] for name in names}, "x")
    looks = re.findall(
        r'fill: none; (?:stroke-dasharray: [^;]+; [^"]*)?stroke: #\w+', drawn(curves, order=names)
    )
    assert len(set(looks)) >= 25


def test_a_series_has_one_colour_in_charts_of_different_series():
    lines = {name: [[(1, 0.5), (2, 0.2)]] for name in ("a", "c")}
    both = drawn(BarChart("", {"c": [0.5]}, ["x"]), LineChart("", lines, "x"))
    assert bar_lengths(both, SERIES_COLORS[2]) and not bar_lengths(both, BLUE)
    assert len(line(both, BLUE)) == len(line(both, SERIES_COLORS[2])) == 2
    assert not shapes(both, ORANGE)


def test_a_chart_that_says_nothing_is_not_drawn():
    point = LineChart("point", {"a": [[(2, 0.5)], [(2, 0.7)]], "b": [[(3, 0.1)]]}, "epoch")
    empty = LineChart("empty", {"a": [], "b": [[]], "c": [[(1, float("nan"))]]}, "epoch")
    absent = BarChart("absent", {"a": [None, float("nan")]}, ["x", "y"])
    assert chart_files([point, empty, absent], NAMES) == {}
    texts = chart_texts(drawn(point, BarChart("bars", {"a": [0.5], "b": [None]}, ["x"])))
    assert {"bars", "a"} <= set(texts) and not {"point", "b"} & set(texts)


def test_any_title_is_shown_as_it_is():
    title = "β of $1 and $2 " * 20
    svg = drawn(BarChart(title, {"a": [1]}, ["x"]))
    assert title.strip() in " ".join(chart_texts(svg))


def test_the_same_chart_gives_the_same_files_without_pyplot():
    code = """
import hashlib, sys
from utils.pictures.charts import BarChart, chart_files
files = chart_files([BarChart("title", {"a": [0.5], "b": [None]}, ["x"])], ["a", "b"])
assert "matplotlib.pyplot" not in sys.modules and list(files) == [".png", ".svg"]
assert files[".png"].startswith(b"\\x89PNG") and b"dc:date" not in files[".svg"]
print(*(hashlib.sha256(content).hexdigest() for content in files.values()))
"""
    command = [sys.executable, "-c", code]
    one, two = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert one.stdout == two.stdout and one.returncode == 0, one.stderr


def test_commands_start_without_matplotlib():
    code = "import main, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib

    names = ("font.size", "svg.hashsalt", "grid.color")
    before = [matplotlib.rcParams[name] for name in names]
    drawn(BarChart("", {"a": [1]}, ["x"]))
    assert [matplotlib.rcParams[name] for name in names] == before
