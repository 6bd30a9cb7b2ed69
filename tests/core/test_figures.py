"""Pictures: PNG bytes that another decoder reads back, SVG that belongs to the page."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.image import imread

from saddlepoint.core.errors import InputError, NonFinite
from saddlepoint.core.figures import figure, image_png, to_svg


def decoded(data):
    return np.rint(imread(io.BytesIO(data), format="png") * 255).astype(np.uint8)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9)), st.integers(1, 3))
def test_grey_png_round_trip(pixels, scale):
    assert (decoded(image_png(pixels, scale)) == pixels.repeat(scale, 0).repeat(scale, 1)).all()


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_colour_png_round_trip(pixels):
    assert (decoded(image_png(pixels)) == pixels).all()


def test_floats_are_rounded_and_clipped():
    assert decoded(image_png(np.array([[-1.0, 0.5, 2.0]]))).tolist() == [[0, 128, 255]]


def test_pictures_that_cannot_be():
    with pytest.raises(NonFinite):
        image_png(np.array([[np.nan]]))
    with pytest.raises(InputError):
        image_png(np.zeros((0, 3)))


def test_figures_leave_no_trace_and_repeat():
    before = dict(matplotlib.rcParams)

    def drawn():
        fig, axes = figure()
        axes.plot([0, 1], [1, 0])
        axes.set_title("a <b> & $c")
        return to_svg(fig, 'say "it" & <that>', "p")

    text = drawn()
    assert text == drawn()
    assert dict(matplotlib.rcParams) == before
    assert 'aria-label="say &quot;it&quot; &amp; &lt;that&gt;"' in text
    assert "a &lt;b&gt; &amp; $c" in text
    assert "DejaVu" not in text
    assert text.startswith("<svg")
    assert text.endswith("</svg>")
