import numpy as np
import pytest
from PIL import ImageDraw

from datasets.labels import IGNORE, PALETTE
from utils.pictures.panels import (
    ERROR_COLOR,
    ComparisonRow,
    PanelRow,
    comparison,
    error_map,
    error_panel,
    panel,
    pseudo_label_panel,
)
from utils.pictures.sheet import EDGE, GAP, SMALL

HEIGHT, WIDTH = 32, 64
IMAGE = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)


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


def test_a_comparison_of_images_without_labels_shows_whole_predictions_and_no_truth():
    row = ComparisonRow("photo", IMAGE, ids(IGNORE), [ids(3), ids(4)])
    sheet = comparison([row], ["a", "b"], title="", width=WIDTH)
    assert sheet.shape[1] == 3 * (WIDTH + GAP) - GAP + 2 * EDGE
    for column, train_id in enumerate((3, 4), start=1):
        assert place(sheet, train_id)[1:] == (EDGE + column * (WIDTH + GAP), HEIGHT, WIDTH)
    assert not has_color(sheet, PALETTE[IGNORE]).any()


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
    ):
        assert (sheet[:, : EDGE - 1] == 255).all() and (sheet[:, -EDGE + 1 :] == 255).all()


def test_letters_that_the_font_lacks_are_spelled_out():
    sheets = [panel([], title=title) for title in ("β=1 à côté", "beta=1 a cote")]
    assert np.array_equal(*sheets)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_pseudo_label_is_shown_beside_its_truth_with_what_of_it_is_right(share, monkeypatch):
    written = []
    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda draw, place, text, *style: (written.append(text), write(draw, place, text, *style)),
    )
    truth, label = ids(5), ids(5)
    label[: HEIGHT // 2] = 255
    label[:, : int(share * WIDTH)] = np.where(label == 255, 255, 6)[:, : int(share * WIDTH)]
    sheets = [pseudo_label_panel([("frame", IMAGE, label, one)], title="") for one in (truth, None)]
    right = f"{100 * (1 - share):.0f} % of these right"
    assert f"50 % of the pixels labelled, {right}" in written
    assert "50 % of the pixels labelled" in written and "truth" in written
    assert sheets[0].shape[1] > sheets[1].shape[1]
