"""What a run says about itself: log.csv, TensorBoard if asked, and a plot at the end."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import logging
from pathlib import Path
from typing import Any

from ..extras import install_hint, need

logger = logging.getLogger(__name__)

LOG_NAME = "log.csv"
PLOT_NAME = "training.png"
COLUMNS = (
    *("stage", "stage_step", "step", "loss", "learning_rate", "steps_per_s"),
    *("gain_light_db", "gain_consistent_db", "least_gain_db"),
)
MEAN_OVER = 20


class RunLog:
    """Appends rows; a resumed run drops what was logged after the state it goes on from.

    Args:
        folder: Of the run.
        step: Steps done in all stages.
        with_tensorboard: Also write TensorBoard's event files.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, *, with_tensorboard: bool) -> None:
        self.path = folder / LOG_NAME
        self._board: Any = None
        if with_tensorboard:
            need("tensorboard", extra="train", purpose="tensorboard = true")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        kept = [row for row in read_log(self.path) if int(row["step"]) <= step]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; keys are of `COLUMNS`, `step` among them."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, row["step"])
            self._board.flush()

    def close(self) -> None:
        """Draw the plot and close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
        rows = read_log(self.path)
        if importlib.util.find_spec("matplotlib") is None:
            logger.warning("no plot of the run without matplotlib: %s", install_hint("plot"))
        elif rows:
            plot_log(rows, self.path.with_name(PLOT_NAME))


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log; none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _series(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    chosen = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in chosen], [value for _, value in chosen]


def plot_log(rows: list[dict[str, str]], path: Path) -> None:
    """Loss (with its running mean) and gains over the steps, stages separated by lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps, losses = _series(rows, "loss")
    means = [
        sum(losses[max(0, i + 1 - MEAN_OVER) : i + 1]) / min(i + 1, MEAN_OVER)
        for i in range(len(losses))
    ]
    upper.plot(steps, losses, color="0.8", linewidth=0.8)
    upper.plot(steps, means, color="tab:blue", label=f"mean of {MEAN_OVER} readings")
    upper.set(ylabel="loss", yscale="log")
    upper.legend()
    for name, label in (
        ("gain_light_db", "light"),
        ("gain_consistent_db", "consistent"),
        ("least_gain_db", "worst clip of both"),
    ):
        at, values = _series(rows, name)
        if at:
            lower.plot(at, values, marker=".", label=label)
    lower.axhline(0, color="0.5", linewidth=0.8)
    lower.set(xlabel="step", ylabel="PSNR over bicubic, dB")
    if lower.get_legend_handles_labels()[0]:
        lower.legend()
    for row, following in itertools.pairwise(rows):
        if row["stage"] != following["stage"]:
            for axis in (upper, lower):
                axis.axvline(int(row["step"]), color="0.6", linestyle=":")
    figure.savefig(path, dpi=110)
