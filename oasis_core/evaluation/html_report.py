"""What an evaluation leaves behind: JSON, CSV, and one HTML page that holds its own pictures."""

from __future__ import annotations

import csv
import html
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .benchmark import ORIGINAL, ClipResult, Shown, method_means, summarise
from .pictures import busiest_crop, data_url, detail, enlarge, time_slice
from .suite import METRICS, MetricSuite, Values

CROP_PX = 160
SLICE_ZOOM, SLICE_PX = 8, 160
WIPE_PX = (480, 270)
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1180px;padding:1.5rem;color:#222}
h1{font-size:1.5rem}h2{margin-top:2.5rem;border-bottom:2px solid #ddd}h3{margin:1.6rem 0 .3rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e4e4e4}
th:first-child,td:first-child{text-align:left}td.best{font-weight:700}td.worse{color:#b00020}
td.better{color:#0a6b2d}
.row{display:flex;flex-wrap:wrap;gap:8px;margin:.5rem 0}figure{margin:0}
figure img{display:block;image-rendering:pixelated;width:270px;height:270px}
figure.slice img{height:216px;width:auto}
figcaption{font-size:13px;color:#555;text-align:center}
.wipe{position:relative;width:960px;max-width:100%;line-height:0}
.wipe img{width:100%;display:block}
.wipe img.top{position:absolute;inset:0;clip-path:inset(0 50% 0 0)}
.wipe b{position:absolute;bottom:6px;font:13px/1.4 system-ui;color:#fff;background:#0009;
padding:1px 7px}
input[type=range]{width:960px;max-width:100%}
.note{color:#555;font-size:14px}svg{max-width:100%;height:auto}
"""
_SCRIPT = """
document.querySelectorAll('input[type=range]').forEach(slider=>slider.oninput=()=>{
slider.previousElementSibling.querySelector('.top').style.clipPath=
`inset(0 ${100-slider.value}% 0 0)`})
"""


class PictureBook:
    """Collects each clip's pictures while its pixels are in memory; they wait in a file."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, str], tuple[int, int]] = {}
        # Gone when the book is: it has no name.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the book

    def page(self, degradation: str, name: str) -> str:
        """The pictures of one result as HTML; empty if there are none."""
        start, length = self._pages.get((degradation, name), (0, 0))
        self._file.seek(start)
        return self._file.read(length).decode()

    def add(self, result: ClipResult, shown: Shown) -> None:
        """Keep the pictures of one result."""
        clips = dict(shown.methods)
        if shown.truth is not None:
            clips[ORIGINAL] = shown.truth
        middle = result.num_frames // 2
        frames = {name: clip[middle] for name, clip in clips.items()}
        rows = []
        for title, (top, left) in crop_places(frames, CROP_PX).items():
            row = [_figure(name, _cut(frame, top, left)) for name, frame in frames.items()]
            if shown.low is not None:
                some = next(iter(frames.values()))
                low = enlarge(shown.low[min(middle, len(shown.low) - 1)], *some.shape[1:])
                row.insert(0, _figure("input", _cut(low, top, left)))
            rows.append(f'<p class="note">{title}</p><div class="row">{"".join(row)}</div>')
        if result.num_frames > 1:
            rows.append(_slices(clips, crop_places(frames, CROP_PX)))
        rows.append(_wipe(frames))
        text = "".join(rows).encode()
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(text)
        self._pages[result.degradation, result.name] = start, len(text)


def _cut(frame: Tensor, top: int, left: int) -> Tensor:
    return frame[:, top : top + CROP_PX, left : left + CROP_PX]


def crop_places(frames: Mapping[str, Tensor], side_px: int) -> dict[str, tuple[int, int]]:
    """Where to look: what the methods disagree on most, and the most detailed place.

    Args:
        frames: What each method made of one frame, `3 h w`.
        side_px: Side of the crop.

    Returns:
        (top, left) by a title for people.
    """
    first, *others = frames.values()
    crops = {"Most detail": busiest_crop(detail(others[-1] if others else first), side_px)}
    if "bicubic" in frames and "model" in frames:
        change = (frames["model"] - frames["bicubic"]).abs().mean(0)
        crops = {"Changed most by the model": busiest_crop(change, side_px), **crops}
    if len(set(crops.values())) < len(crops):
        crops.pop("Most detail")
    return crops


def _figure(caption: str, image: Tensor, kind: str = "") -> str:
    name = html.escape(caption)
    return (
        f'<figure class="{kind}"><img alt="{name}" src="{data_url(image)}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _slices(clips: Mapping[str, Tensor], crops: Mapping[str, tuple[int, int]]) -> str:
    top, left = next(iter(crops.values()))
    figures = []
    for name, clip in clips.items():
        column = min(left + CROP_PX // 2, clip.shape[3] - 1)
        picture = time_slice(clip, column, top, CROP_PX)
        height, width = picture.shape[1:]
        zoom = max(SLICE_ZOOM, SLICE_PX // width)
        figures.append(_figure(name, enlarge(picture, height, width * zoom), "slice"))
    return (
        '<p class="note">One column of pixels, time to the right: even lines are steady, '
        f'jagged ones flicker</p><div class="row">{"".join(figures)}</div>'
    )


def _wipe(frames: Mapping[str, Tensor]) -> str:
    names = [name for name in frames if name != ORIGINAL][:2]
    if len(names) < 2:
        return ""
    full_height, full_width = frames[names[0]].shape[1:]
    width, height = min(WIPE_PX[0], full_width), min(WIPE_PX[1], full_height)
    views = {}
    for name in names:
        image = frames[name]
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        views[name] = data_url(image[:, top : top + height, left : left + width], is_lossless=False)
    below, above = (html.escape(name) for name in names)
    return (
        f'<p class="note">Centre of the frame; drag</p><div class="wipe">'
        f'<img alt="{above}" src="{views[names[1]]}">'
        f'<img class="top" alt="{below}" src="{views[names[0]]}">'
        f'<b style="left:6px">{below}</b><b style="right:6px">{above}</b></div>'
        '<input type="range" value="50" aria-label="wipe">'
    )


def results_json(
    results: Sequence[ClipResult],
    suite: MetricSuite,
    settings: Mapping[str, Any],
    skipped: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything measured as JSON values, and the clips that could not be, with the reasons."""
    return {
        "summary": summarise(results),
        "means": method_means(results),
        "clips": [result.to_json() for result in results],
        "unavailable": suite.unavailable,
        "notes": suite.notes,
        "skipped": dict(skipped or {}),
        "settings": dict(settings),
    }


def write_csv(path: Path, results: Sequence[ClipResult]) -> None:
    """One line per clip, degradation and method."""
    rows = [
        {
            "clip": result.name,
            "degradation": result.degradation,
            "method": method,
            "frames": result.num_frames,
            **values,
        }
        for result in results
        for method, values in result.methods.items()
    ]
    names = ["clip", "degradation", "method", "frames"]
    names += [name for name in METRICS if any(name in row for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def write_report(
    folder: Path,
    results: Sequence[ClipResult],
    suite: MetricSuite,
    settings: Mapping[str, Any],
    book: PictureBook,
    skipped: Mapping[str, str] | None = None,
) -> Path:
    """Write results.json, results.csv and report.html into a folder; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    values = results_json(results, suite, settings, skipped)
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    write_csv(folder / "results.csv", results)
    page = folder / "report.html"
    with page.open("w", encoding="utf-8") as file:
        for part in _page(results, suite, settings, book, skipped or {}):
            file.write(f"{part}\n")
    return page


def _page(
    results: Sequence[ClipResult],
    suite: MetricSuite,
    settings: Mapping[str, Any],
    book: PictureBook,
    skipped: Mapping[str, str],
) -> Iterator[str]:
    """The page piece by piece: all pictures together may be large."""
    degradations = list(dict.fromkeys(result.degradation for result in results))
    means = method_means(results)
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>OASIS evaluation</title>"
    yield f"<style>{_STYLE}</style><h1>OASIS evaluation</h1>"
    yield f'<p class="note">{html.escape(_described(settings))}</p>'
    if skipped:
        lines = "".join(f"<li>{html.escape(f'{k}: {v}')}</li>" for k, v in skipped.items())
        yield f"<p><b>{len(skipped)} clips were skipped</b></p><ul>{lines}</ul>"
    for degradation in degradations:
        chosen = [result for result in results if result.degradation == degradation]
        yield f"<h2>{html.escape(degradation)}: mean of {len(chosen)} clips</h2>"
        yield _verdict(chosen)
        yield _table(means[degradation])
        yield _chart(chosen)
    yield _legend(results, suite)
    for degradation in degradations:
        yield f"<h2>{html.escape(degradation)}, clip by clip</h2>"
        for result in (result for result in results if result.degradation == degradation):
            size = f"{result.size[0]}x{result.size[1]}, {result.num_frames} frames"
            yield f"<h3>{html.escape(result.name)}</h3><p class=note>{size}</p>"
            yield _table(result.methods)
            yield book.page(degradation, result.name)
    yield f"<script>{_SCRIPT}</script></html>"


def _verdict(results: Sequence[ClipResult]) -> str:
    """One sentence on the model against the bicubic resize; empty if there is no original."""
    gains = {result.name: result.gain_db for result in results if result.gain_db is not None}
    if not gains:
        return ""
    worst = min(gains, key=gains.__getitem__)
    below = sum(gain < 0 for gain in gains.values())
    text = (
        f"The model is {sum(gains.values()) / len(gains):+.2f} dB from the bicubic resize on "
        f"average; worst clip: {worst} ({gains[worst]:+.2f} dB); "
        f"{below or 'none'} of {len(gains)} below it."
    )
    return f"<p><b>{html.escape(text)}</b></p>"


def _described(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def _table(methods: Mapping[str, Values]) -> str:
    """Methods by metrics; the best value of a column bold, the model's coloured by its sign."""
    names = [name for name in METRICS if any(name in row for row in methods.values())]
    if not names:
        return '<p class="note">No metric applies: there is no original to compare with.</p>'
    head = "".join(f"<th>{METRICS[name].title}</th>" for name in names)
    rows = []
    for method in methods:
        cells = "".join(_cell(name, method, methods) for name in names)
        rows.append(f"<tr><td>{html.escape(method)}</td>{cells}</tr>")
    return f"<table><tr><th>method</th>{head}</tr>{''.join(rows)}</table>"


def _cell(name: str, method: str, methods: Mapping[str, Values]) -> str:
    value = methods[method].get(name)
    if value is None:
        return "<td>-</td>"
    info = METRICS[name]
    own = methods.get(ORIGINAL, {}).get(name)
    if own is not None and not info.is_higher_better:
        # Less change than the original has is blur, not merit: nobody wins or loses there.
        base = methods.get("bicubic", {}).get(name, value)
        if min(value, base) < own:
            return f"<td>{value:.{info.digits}f}</td>"
    known = [row[name] for key, row in methods.items() if name in row and key != ORIGINAL]
    best = max(known) if info.is_higher_better else min(known)
    classes = ["best"] if value == best and len(known) > 1 else []
    base = methods.get("bicubic", {}).get(name)
    if base is not None and method not in ("bicubic", ORIGINAL) and value != base:
        classes.append("better" if (value > base) is info.is_higher_better else "worse")
    return f'<td class="{" ".join(classes)}">{value:.{info.digits}f}</td>'


def _chart(results: Sequence[ClipResult]) -> str:
    """Gain over the bicubic resize, clip by clip, as SVG."""
    gains = [(result.name, result.gain_db) for result in results if result.gain_db is not None]
    if not gains:
        return ""
    gains.sort(key=lambda pair: pair[1], reverse=True)
    least, most = min(0.0, gains[-1][1]), max(0.0, gains[0][1])
    unit = 560 / max(most - least, 1e-6)
    zero = 230 - least * unit
    bars = []
    for index, (name, gain) in enumerate(gains):
        y = 22 * index + 6
        x, color = min(zero, zero + gain * unit), "#2b7a4b" if gain >= 0 else "#b00020"
        bars.append(
            f'<text x="222" y="{y + 11}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{abs(gain) * unit:.1f}" height="14" '
            f'fill="{color}"/><text x="{max(zero, x + abs(gain) * unit) + 6:.1f}" y="{y + 11}">'
            f"{gain:+.2f} dB</text>"
        )
    height = 22 * len(gains) + 8
    return (
        "<p class=note>PSNR of the model over the bicubic resize</p>"
        f'<svg viewBox="0 0 880 {height}" width="880" font-size="12" '
        f'font-family="system-ui">{"".join(bars)}<line x1="{zero:.1f}" x2="{zero:.1f}" y1="0" '
        f'y2="{height}" stroke="#888"/></svg>'
    )


def _legend(results: Sequence[ClipResult], suite: MetricSuite) -> str:
    used = {name for result in results for row in result.methods.values() for name in row}
    lines = [
        f"<li><b>{info.title}</b>: {html.escape(info.about)}; "
        f"{'higher' if info.is_higher_better else 'lower'} is better"
        + (f". {html.escape(suite.notes[name])}" if name in suite.notes else "")
        for name, info in METRICS.items()
        if name in used
    ]
    lines += [
        f"<li>not measured: {html.escape(reason)}</li>" for reason in suite.unavailable.values()
    ]
    return f"<h2>What was measured</h2><ul>{''.join(lines)}</ul>"
