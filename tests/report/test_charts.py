import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.report.charts import curves, linear_axis, log_axis, points, style_of

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@settings(max_examples=150, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_an_axis_holds_all_values_and_has_a_few_rising_ticks(values):
    axis = linear_axis(values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    numbers = [value for value, _ in axis.ticks]
    assert numbers == sorted(set(numbers))
    assert 2 <= len(numbers) <= 9
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value in numbers)
    texts = [text for _, text in axis.ticks]
    assert len(set(texts)) == len(texts)
    for value, text in axis.ticks:
        assert float(text) == pytest.approx(value, abs=1e-9, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_axis_of_a_share_never_leaves_zero_to_one(values):
    axis = linear_axis(values, least=0.0, most=1.0)
    assert 0 <= axis.low <= min(values)
    assert max(values) <= axis.high <= 1


def test_an_axis_of_one_value_has_room_around_it():
    axis = linear_axis([0.8], most=1.0)
    assert axis.low < 0.8 < axis.high


def test_places_are_percents_of_the_axis_and_stay_on_it():
    axis = linear_axis([0.0, 1.0])
    assert (axis.percent(0.25), axis.percent(-3), axis.percent(7)) == (25.0, 0.0, 100.0)


def test_a_logarithmic_axis_puts_doublings_at_equal_distances():
    axis = log_axis([(5, "1"), (10, "2"), (20, "4"), (40, "all")])
    assert [round(axis.at(size), 6) for size, _ in axis.ticks] == [0, round(1 / 3, 6), round(2 / 3, 6), 1]


def test_a_tick_on_the_toes_of_the_last_is_left_out():
    assert [text for _, text in log_axis([(5, "1"), (100, "20"), (105, "all")]).ticks] == ["1", "all"]


def test_one_size_alone_lies_in_the_middle():
    assert log_axis([(7, "1")]).at(7) == pytest.approx(0.5)


def test_48_classes_are_told_apart_and_neighbours_by_colour_and_by_shape():
    styles = [style_of(number) for number in range(48)]
    assert len({tuple(style.items()) for style in styles}) == 48
    for one, other in itertools.pairwise(styles):
        assert one["colour"] != other["colour"]
        assert one["shape"] != other["shape"]


def point(size, n_labels, mean, interval=None):
    return {"labels_per_class": size, "n_labels": n_labels, "mean": mean, "ci95": interval, "n_draws": 20}


def test_a_curve_lies_where_its_numbers_say():
    chart = curves([[point(1, 5, 0.2, [0.1, 0.3]), point(10, 50, 0.6), point(None, 500, 1.0)]])
    inner = chart["width"] - chart["left"] - chart["right"]
    height = chart["height"] - chart["top"] - chart["bottom"]
    [line] = chart["lines"]
    xs = [place["x"] for place in line["places"]]
    assert xs == [chart["left"], chart["left"] + inner / 2, chart["left"] + inner]
    ticks = {float(text): y for y, text in chart["y_ticks"]}
    for place in line["places"]:
        assert place["y"] == pytest.approx(ticks[place["point"]["mean"]], abs=0.2)
    assert ticks[1.0] == chart["top"]
    # No slope leads to all labels, which are no number of labels per class.
    assert line["line"] == " ".join(f"{place['x']},{place['y']}" for place in line["places"][:2])
    assert len(line["band"].split()) == 4
    [(x, high, low)] = line["whiskers"]
    assert (x, low - high) == (xs[0], pytest.approx(height * 0.2 / (1.0 - min(ticks)), abs=0.2))
    assert [text for _, text in chart["x_ticks"]] == ["1", "10", "all"]


def test_points_without_a_mean_are_left_out_and_the_baseline_is_on_the_chart():
    chart = curves([[point(1, 5, None), point(2, 10, 0.5), point(None, 20, 0.9)]], baseline=0.1)
    assert len(chart["lines"][0]["places"]) == 2
    assert chart["top"] <= chart["baseline"] <= chart["height"] - chart["bottom"]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_points_stay_inside_and_keep_their_order(places):
    chart = points(*zip(*places, strict=True))
    for x, y in chart["places"]:
        assert chart["margin"] - 0.1 <= x <= chart["width"] - chart["margin"] + 0.1
        assert chart["margin"] - 0.1 <= y <= chart["height"] - chart["margin"] + 0.1
    drawn = sorted(zip(places, chart["places"], strict=True))
    xs = [place[0] for _, place in drawn]
    assert xs == sorted(xs)


def test_a_map_keeps_its_shape():
    chart = points([0, 1, 0], [0, 0, 3])
    (ax, ay), (bx, _), (_, cy) = chart["places"]
    assert (bx - ax) * 3 == pytest.approx(ay - cy, abs=0.5)
    assert ay - cy == pytest.approx(chart["height"] - 2 * chart["margin"])
    assert math.isfinite(sum(sum(place) for place in points([1, 1], [2, 2])["places"]))


def test_a_map_of_many_is_larger_so_that_marks_hide_fewer():
    few, many = (points(range(count), range(count)) for count in (700, 701))
    assert (few["is_dense"], many["is_dense"]) == (False, True)
    assert (many["width"], many["height"]) == (few["width"] * 1.5, few["height"] * 1.5)
