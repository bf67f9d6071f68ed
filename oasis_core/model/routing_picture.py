"""A routing as a picture: layers x heads, a colour for each pattern, distances as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..extras import need
from .routing import HeadPattern, HeadRouting

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

# Light enough for black text, and told apart with any colour vision (Okabe and Ito's hues).
COLORS = {
    HeadPattern.GLOBAL: "#F0B562",
    HeadPattern.INTRA: "#7CC4EC",
    HeadPattern.WINDOW: "#C9C9C9",
}
CELL_W_PX, CELL_H_PX = 156, 84
LEFT_PX, TOP_PX, BOTTOM_PX = 116, 118, 72
MIN_WIDTH_PX = 760
INK = "#202020"
SCALE = (
    "intra / window: how much of what a head looks at lies outside the pattern.",
    "0 nothing; 1 as much as of attention spread evenly; above 1 even more.",
)
"""What a normalised distance says: mean -ln of the share inside, over that of even attention."""


def draw_routing(routing: HeadRouting) -> Image:
    """Draw a routing, heads in the checkpoint's order.

    Returns:
        A picture in RGB; where the routing has distances, each cell shows the normalised distance
        to both cheap patterns.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    need("PIL", extra="plot", purpose="a picture of the routing")
    from PIL import Image, ImageDraw

    width = max(MIN_WIDTH_PX, LEFT_PX + CELL_W_PX * routing.num_heads + 16)
    height = TOP_PX + CELL_H_PX * routing.num_layers + BOTTOM_PX
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    window = "x".join(map(str, routing.window))
    draw.text((16, 10), f"Attention routing, window {window} tokens", INK, _font(26))
    if routing.distances is not None:
        for line, text in enumerate(SCALE):
            draw.text((16, 46 + 28 * line), text, INK, _font(20))
    for layer in range(routing.num_layers):
        top = TOP_PX + CELL_H_PX * layer
        draw.text((16, top + CELL_H_PX // 2), f"layer {layer}", INK, _font(22), anchor="lm")
        for head in range(routing.num_heads):
            _draw_head(draw, routing, layer, head)
    _draw_legend(draw, routing, height - BOTTOM_PX + 16)
    return image


def _font(size_px: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size_px)


def _draw_head(draw: ImageDraw, routing: HeadRouting, layer: int, head: int) -> None:
    left, top = LEFT_PX + CELL_W_PX * head, TOP_PX + CELL_H_PX * layer
    box = (left, top, left + CELL_W_PX - 4, top + CELL_H_PX - 4)
    pattern = routing.patterns[layer][head]
    name = pattern.name.lower()
    draw.rectangle(box, fill=COLORS[pattern])
    middle = (left + CELL_W_PX // 2 - 2, top + CELL_H_PX // 2 - 2)
    if routing.distances is None:
        draw.text(middle, name, INK, _font(24), anchor="mm")
        return
    intra, window = routing.distances.normalized[layer][head]
    draw.text((middle[0], middle[1] - 16), name, INK, _font(24), anchor="mm")
    draw.text(
        (middle[0], middle[1] + 16), f"{intra:.2f} / {window:.2f}", INK, _font(24), anchor="mm"
    )


def _draw_legend(draw: ImageDraw, routing: HeadRouting, top: int) -> None:
    patterns = [pattern for row in routing.patterns for pattern in row]
    for index, (pattern, color) in enumerate(COLORS.items()):
        left = 16 + 240 * index
        draw.rectangle((left, top, left + 28, top + 28), fill=color)
        text = f"{pattern.name.lower()}: {patterns.count(pattern)}"
        draw.text((left + 38, top + 14), text, INK, _font(22), anchor="lm")
