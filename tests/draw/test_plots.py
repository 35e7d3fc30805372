"""Plots: where points come to lie, and that every picture is well-formed on its own."""

import re
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisa.draw.plots import (
    BOX,
    MARGIN,
    histogram,
    intervals,
    panels,
    place,
    polyline,
    reliability_plot,
)

SVG = "{http://www.w3.org/2000/svg}"
POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e3, 1e3)), min_size=2, max_size=9)


def points_of(drawing: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'points="([^"]*)"', drawing)
    return [tuple(map(float, pair.split(","))) for pair in points.split()]


def test_a_line_fills_its_box_and_higher_is_up() -> None:
    drawing = polyline([(100, 1.0), (150, 3.0), (300, 2.0)], width=200, height=80)
    assert points_of(drawing) == [(0, 80), (50, 0), (200, 40)]


def test_a_flat_line_is_drawn_too() -> None:
    assert points_of(polyline([(5, 2.0), (9, 2.0)], width=40, height=10)) == [(0, 10), (40, 10)]


# Curves under their captions


@given(st.dictionaries(st.text("<&ab", max_size=5), POINTS, max_size=5))
def test_panels_are_well_formed_whatever_they_are_called(
    curves: dict[str, list[tuple[float, float]]],
) -> None:
    root = xml.fromstring(panels(curves))
    assert len(root.findall(f".//{SVG}polyline")) == len(curves)
    captions = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert all(c.startswith(f"{name}: ") for c, name in zip(captions, curves, strict=True))


def test_a_caption_tells_where_a_curve_begins_and_ends() -> None:
    drawn = panels({"eyes, loss": [(20.0, 3.5), (40.0, 1.25)]})
    assert "eyes, loss: 3.5 to 1.25, step 40" in drawn


# Reliability


def test_higher_is_up_and_the_corners_are_the_box() -> None:
    assert place(0, 0) == (MARGIN, MARGIN + BOX)
    assert place(1, 1) == (MARGIN + BOX, MARGIN)


def test_each_bin_is_a_dot_and_each_model_a_line() -> None:
    bins = [(0.25, 0.5, 3), (0.75, 0.5, 1)]
    root = xml.fromstring(reliability_plot({"a < b": bins, "c": bins[:1]}))
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == 3
    where = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in dots[:2]]
    assert where == [place(0.25, 0.5), place(0.75, 0.5)]
    areas = [float(dot.get("r", 0)) ** 2 for dot in dots[:2]]
    assert areas[0] / areas[1] == pytest.approx(3, rel=0.05)
    names = [text.text for text in root.iter(f"{SVG}text")]
    assert names[-2:] == ["a < b", "c"]


def test_a_model_without_scores_is_a_name_without_dots() -> None:
    root = xml.fromstring(reliability_plot({"silent": []}))
    assert not list(root.iter(f"{SVG}circle"))


# How often, and how sure


def bars(drawing: str) -> list[dict[str, float]]:
    """The rectangles that are neither the background nor a frame."""
    root = xml.fromstring(drawing)
    rectangles = [one.attrib for one in root.iter(f"{SVG}rect") if one.get("x")]
    return [{k: float(one[k]) for k in ("x", "y", "width", "height")} for one in rectangles]


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 12))
def test_every_value_is_in_one_bin(values: list[float], bins: int) -> None:
    found = bars(histogram({"<a>": values}, bins))
    assert len(found) == bins
    highest = max(one["height"] for one in found)
    assert highest == pytest.approx(BOX if values else 0, abs=0.11)
    if values:
        expected, _ = np.histogram(values, bins, (0, 1))
        inner = [v for v in values if abs(v * bins - round(v * bins)) > 1e-9]
        if len(inner) == len(values):  # on a bound the last digit decides
            heights = [one["height"] / BOX * max(expected) for one in found]
            assert np.allclose(heights, expected, atol=0.02)


def test_columns_of_a_histogram_stand_side_by_side() -> None:
    found = bars(histogram({"a": [0.1], "b": [0.1, 0.9]}, bins=2))
    assert sorted(one["x"] for one in found) == [MARGIN, MARGIN + 80, MARGIN + 160, MARGIN + 240]


def test_intervals_lie_on_their_bars() -> None:
    drawing = intervals([("<short>", 0.5, 0.25, 0.75), ("long", 0.1, 0.0, 0.2)])
    assert [one["width"] for one in bars(drawing)] == [0.5 * BOX, 0.1 * BOX]
    first, second = re.findall(r'points="([^"]*)"', drawing)
    (low, y), (high, same) = (map(float, pair.split(",")) for pair in first.split())
    left = bars(drawing)[0]["x"]
    assert (low - left, high - left, y) == (0.25 * BOX, 0.75 * BOX, same)
    assert bars(drawing)[1]["y"] < float(second.split(",")[-1]) < bars(drawing)[1]["y"] + 14
    assert "&lt;short&gt;" in drawing
