"""Charts as their files show them: the SVG holds text as text and shapes as coordinates."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import main
from datasets.labels import CLASS_NAMES
from tests.support.helpers import chart_texts
from utils.pictures.charts import HeatMap, LineChart, cell_text, chart_files
from utils.pictures.looks import COLORS, looks

FIRST, SECOND = COLORS[:2]
NAMES = ["a", "b", "c"]


def looks_of(names):
    """Looks of series that are families of their own."""
    return looks({name: name for name in names})


def drawn(*charts, names=NAMES):
    """Return the SVG of charts."""
    return chart_files(charts, looks_of(names))[".svg"].decode()


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


def line(svg, color):
    (points,) = shapes(svg, f"fill: none; stroke: {color}")
    return points


def cells(svg):
    """Return the numbers of a heat map with their places (x, y), and how many cells are hatched."""
    found = []
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        text = (group.text or "").strip()
        if re.fullmatch(r"[\d.]+|–", text):
            place = group.get("transform") or group.get("x")
            found.append((text, place))
    return found, len(re.findall(r"fill: url\(#", svg))


def test_a_heat_map_holds_every_number():
    values = np.linspace(0.051, 0.951, len(CLASS_NAMES))
    svg = drawn(HeatMap("IoU", {"a": [*values], "b": [*values[::-1]]}, CLASS_NAMES))
    texts = chart_texts(svg)
    assert {"IoU", "a", "b", *CLASS_NAMES} <= set(texts)
    for value in values:
        assert texts.count(f"{100 * value:.1f}") == 2


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_an_absent_value_is_hatched_and_is_no_zero(absent):
    series = {"a": [0.5, absent, 0, absent], "b": [0.2, 0.3, 0.4, absent]}
    found, hatched = cells(drawn(HeatMap("", series, "wxyz")))
    texts = [text for text, _ in found]
    assert hatched == texts.count("–") == 3 and texts.count("0") == 1
    assert cell_text(absent) == "–" and cell_text(0) == "0" and cell_text(0.04) == "0.0"


def test_a_line_goes_through_its_points():
    points = [(1, 0.2), (2, 0.4), (3, float("nan")), (4, 0.8)]
    svg = drawn(LineChart("title", {"a": [points], "b": [[(3, 0.5)]]}, "epoch", in_percent=True))
    across, up = line(svg, FIRST).T
    assert np.allclose(np.diff(across)[1], 2 * np.diff(across)[0])
    assert np.allclose(np.diff(up)[1], 2 * np.diff(up)[0]) and up[0] > up[-1]
    assert {"title", "a", "b", "epoch", "1", "4", "80 %"} <= set(chart_texts(svg))


def test_lines_of_a_series_are_their_mean_on_a_band_of_their_range():
    lower, upper = ([(x, y) for x in range(1, 6)] for y in (0.25, 0.75))
    middle = [(x, 0.5) for x in range(1, 6)]
    svg = drawn(LineChart("", {"a": [lower, upper], "b": [upper], "c": [middle]}, "epoch"))
    mean, top, middle = (line(svg, color)[:, 1] for color in COLORS[:3])
    assert np.allclose(mean, middle)
    (band,) = re.findall(
        rf'd="([^"]+)"/>\s*</defs>\s*<g .*>\s*<use .* y="(\S+)" .*{FIRST}; .*0.15', svg
    )
    heights = float(band[1]) + np.array(re.findall(r"[ML] \S+ (\S+)", band[0]), float)
    assert np.isclose(heights.min(), top[0])
    assert np.isclose(heights.max() - mean[0], mean[0] - top[0])


def test_the_axis_of_a_chart_fits_its_values():
    low = LineChart("", {"a": [[(1, 0.50), (2, 0.52)]]}, "epoch", in_percent=True)
    ticks = [float(t.split()[0]) for t in chart_texts(drawn(low)) if t.endswith(" %")]
    assert min(ticks) >= 49 and max(ticks) <= 53
    near_0 = LineChart("", {"a": [[(1, 0.001), (2, 0.5)]]}, "epoch", in_percent=True)
    assert not [text for text in chart_texts(drawn(near_0)) if text.startswith(("-", "−"))]


def test_a_series_has_one_colour_in_charts_of_different_series():
    lines = {name: [[(1, 0.5), (2, 0.2)]] for name in ("a", "c")}
    both = drawn(HeatMap("", {"c": [0.5]}, ["x"]), LineChart("", lines, "x"))
    assert len(line(both, FIRST)) == len(line(both, COLORS[2])) == 2
    assert not shapes(both, f"fill: none; stroke: {SECOND}")


def test_a_chart_that_says_nothing_is_not_drawn():
    point = LineChart("point", {"a": [[(2, 0.5)], [(2, 0.7)]], "b": [[(3, 0.1)]]}, "epoch")
    empty = LineChart("empty", {"a": [], "b": [[]], "c": [[(1, float("nan"))]]}, "epoch")
    absent = HeatMap("absent", {"a": [None, float("nan")]}, ["x", "y"])
    assert chart_files([point, empty, absent], looks_of(NAMES)) == {}
    texts = chart_texts(drawn(point, HeatMap("cells", {"a": [0.5], "b": [None]}, ["x"])))
    assert {"cells", "a"} <= set(texts) and not {"point", "b"} & set(texts)


def test_any_title_is_shown_as_it_is():
    title = "β of $1 and $2 " * 20
    svg = drawn(HeatMap(title, {"a": [1]}, ["x"]))
    assert title.strip() in " ".join(chart_texts(svg))


@pytest.mark.slow
def test_the_same_chart_gives_the_same_files_without_pyplot():
    code = """
import hashlib, sys
from utils.pictures.charts import HeatMap, chart_files
from utils.pictures.looks import Look
files = chart_files([HeatMap("title", {"a": [0.5], "b": [None]}, ["x"])], {"a": Look()})
assert "matplotlib.pyplot" not in sys.modules and list(files) == [".png", ".svg"]
assert files[".png"].startswith(b"\\x89PNG") and b"dc:date" not in files[".svg"]
print(*(hashlib.sha256(content).hexdigest() for content in files.values()))
"""
    command = [sys.executable, "-c", code]
    one, two = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert one.stdout == two.stdout and one.returncode == 0, one.stderr


@pytest.mark.slow
def test_commands_start_without_matplotlib():
    code = "import main, sys; sys.exit('matplotlib' in sys.modules)"
    command = [sys.executable, "-c", code]  # what the quick Python has imported is no test
    assert subprocess.run(command, cwd=Path(main.__file__).parent).returncode == 0


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib

    names = ("font.size", "svg.hashsalt", "grid.color")
    before = [matplotlib.rcParams[name] for name in names]
    drawn(HeatMap("", {"a": [1]}, ["x"]))
    assert [matplotlib.rcParams[name] for name in names] == before
