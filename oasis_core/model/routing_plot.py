"""A picture of a routing: layers x heads, one colour per pattern, the distances as text."""

from __future__ import annotations

from pathlib import Path

from .routing import HeadPattern, HeadRouting

# Light enough for black text, and told apart with any colour vision (Okabe and Ito's hues).
COLORS = {
    HeadPattern.GLOBAL: "#F0B562",
    HeadPattern.INTRA: "#7CC4EC",
    HeadPattern.WINDOW: "#C9C9C9",
}
LABELS = {
    HeadPattern.GLOBAL: "global",
    HeadPattern.INTRA: "intra-frame (I)",
    HeadPattern.WINDOW: "window (W)",
}
CELL_W_IN, CELL_H_IN = 0.72, 0.46
MIN_WIDTH_IN = 6.0
DOTS_PER_INCH = 130


def plot_routing(routing: HeadRouting, path: Path | str) -> None:
    """Draw a routing as a PNG file.

    Args:
        routing: What to draw; heads in the checkpoint's order. Where it has distances, each cell
            shows the normalised distance to both cheap patterns.
        path: The file to write.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch, Rectangle
    except ImportError as error:
        raise ImportError(
            "plotting needs matplotlib, which is not installed; "
            'install it with pip install "oasis-video-upscaler[plot]"'
        ) from error
    num_layers, num_heads = routing.num_layers, routing.num_heads
    width_in = max(MIN_WIDTH_IN, CELL_W_IN * num_heads + 1.0)
    height_in = CELL_H_IN * num_layers + 1.9
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.7 / width_in, 0.95 / height_in, 1 - 0.9 / width_in, 0))
    axes.set_position(
        (0.7 / width_in, 1.05 / height_in, 1 - 0.9 / width_in, CELL_H_IN * num_layers / height_in)
    )
    for layer, row in enumerate(routing.patterns):
        for head, pattern in enumerate(row):
            cell = Rectangle(
                (head, layer), 1, 1, facecolor=COLORS[pattern], edgecolor="white", lw=2
            )
            axes.add_patch(cell)
            center = (head + 0.5, layer + 0.5)
            axes.annotate(_text(routing, layer, head), center, ha="center", va="center", size=7.5)
    axes.set(xlim=(0, num_heads), ylim=(num_layers, 0), xlabel="head", ylabel="layer")
    axes.set_xticks([head + 0.5 for head in range(num_heads)], range(num_heads))
    axes.set_yticks([layer + 0.5 for layer in range(num_layers)], range(num_layers))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    totals = [sum(row.count(pattern) for row in routing.patterns) for pattern in HeadPattern]
    handles = [
        Patch(facecolor=COLORS[pattern], label=f"{LABELS[pattern]}: {totals[pattern]}")
        for pattern in HeadPattern
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False)
    figure.suptitle(_title(routing), size=9.5, y=1 - 0.12 / height_in, va="top")
    figure.savefig(path)


def _text(routing: HeadRouting, layer: int, head: int) -> str:
    if routing.distances is None:
        return ""
    intra, window = routing.distances.normalized[layer][head]
    return f"I {intra:.2f}\nW {window:.2f}"


def _title(routing: HeadRouting) -> str:
    window = "x".join(map(str, routing.window))
    if routing.distances is None:
        return f"Attention routing, window {window} tokens"
    grid = "x".join(map(str, routing.distances.grid))
    return (
        f"Attention routing, window {window} tokens, measured at {grid} tokens (t h w)\n"
        "numbers: normalised distance, 0 loses nothing, 1 loses what uniform attention would"
    )
