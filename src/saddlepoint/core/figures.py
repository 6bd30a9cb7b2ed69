"""The house's figure style: matplotlib's object-oriented interface, SVG for lines, PNG for small pictures.

Colours are those of Okabe and Ito (2008), told apart with every common colour vision deficiency. Ink is written
as `currentColor`, so that a figure inlined in a page takes the page's text colour, also in dark mode.
No pyplot: nothing here touches global state that outlives the call.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from saddlepoint.core.errors import InputError, NonFinite

BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, YELLOW, GREY = "#e69f00", "#56b4e9", "#f0e442", "#8a8f98"
SERIES = (GREEN, PURPLE, ORANGE, SKY, VERMILLION, BLUE)  # what models are drawn in, in turn
INK = "#1a2b3d"  # stands for the text colour until `to_svg` writes currentColor

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "saddlepoint",  # the same figure gives the same bytes
    "font.size": 11,
    "text.parse_math": False,  # a "$" in a user's name is a dollar sign
}


def figure(width: float = 5.4, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure of `width` × `height` inches with one pair of axes in the house's style."""
    with rc_context(_STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(fig)
        axes = fig.add_subplot()
    fig.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(True, color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    return fig, axes


def to_svg(fig: Figure, title: str, prefix: str = "fig") -> str:
    """`fig` as an `<svg>` element for a page: no prolog, no fixed size, text colour from the page.

    `title` is what a screen reader says. `prefix` keeps the ids of several figures on one page apart.
    """
    stream = io.StringIO()
    with rc_context(_STYLE):
        fig.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"(font(?:-family)?:)( [\d.]+px)? '[^;\"]*", rf"\1\2 {_FONTS}", text)
    text = _own_ids(text, prefix)
    label = _escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def image_png(pixels: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"], scale: int = 1) -> bytes:
    """A PNG of grey (h, w) or colour (h, w, 3) pixels in [0, 1], every pixel a block of `scale` × `scale`.

    uint8 pixels are taken as they are. Values outside [0, 1] are clipped. Raises NonFinite for NaN.
    Source: PNG specification (W3C, 2003), one IDAT chunk, filter 0 on every row.
    """
    if pixels.dtype != np.uint8:
        if not np.isfinite(pixels).all():
            raise NonFinite("a picture has NaN or infinite pixels.", "Draw finite arrays only.")
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    if pixels.size == 0 or scale < 1:
        raise InputError(f"no picture in an array of shape {pixels.shape} at scale {scale}.")
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = pixels.shape[:2]
    colour_type = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    rows = b"".join(b"\x00" + row.tobytes() for row in pixels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _own_ids(text: str, prefix: str) -> str:
    """Drop the ids nobody refers to and give the others a prefix: ids must be unique in a page."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for name in set(re.findall(r' id="([^"]+)"', text)) - used:
        text = text.replace(f' id="{name}"', "")
    for name in sorted(used):
        text = text.replace(f' id="{name}"', f' id="{prefix}-{name}"')
        text = text.replace(f"url(#{name})", f"url(#{prefix}-{name})")
        text = text.replace(f'href="#{name}"', f'href="#{prefix}-{name}"')
    return text


def _escape(text: str) -> str:
    for plain, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(plain, safe)
    return text
