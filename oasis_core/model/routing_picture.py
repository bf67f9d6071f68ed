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
CELL_W_PX, CELL_H_PX = 96, 60
LEFT_PX, TOP_PX, BOTTOM_PX = 96, 64, 56
MIN_WIDTH_PX = 640
INK = "#202020"


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
    draw.text((16, 10), f"Attention routing, window {window} tokens", INK, _font(18))
    if routing.distances is not None:
        text = "intra / window distance: 0 loses nothing, 1 what uniform attention would lose"
        draw.text((16, 36), text, INK, _font(13))
    for layer in range(routing.num_layers):
        top = TOP_PX + CELL_H_PX * layer
        draw.text((16, top + CELL_H_PX // 2), f"layer {layer}", INK, _font(14), anchor="lm")
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
        draw.text(middle, name, INK, _font(15), anchor="mm")
        return
    intra, window = routing.distances.normalized[layer][head]
    draw.text((middle[0], middle[1] - 10), name, INK, _font(15), anchor="mm")
    draw.text(
        (middle[0], middle[1] + 11), f"{intra:.2f} / {window:.2f}", INK, _font(13), anchor="mm"
    )


def _draw_legend(draw: ImageDraw, routing: HeadRouting, top: int) -> None:
    patterns = [pattern for row in routing.patterns for pattern in row]
    for index, (pattern, color) in enumerate(COLORS.items()):
        left = 16 + 200 * index
        draw.rectangle((left, top, left + 20, top + 20), fill=color)
        text = f"{pattern.name.lower()}: {patterns.count(pattern)}"
        draw.text((left + 28, top + 10), text, INK, _font(15), anchor="lm")
