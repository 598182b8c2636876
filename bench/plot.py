"""One picture of the main table: searches a second as multiples of Milvus'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.results import Results
from bench.systems import TITLES

ROWS = {
    "nq=1, 1 worker": "1 worker",
    "nq=1, 4 workers": "4 workers",
    "nq=1, 16 workers": "16 workers",
    "nq=100, 4 workers": "100 queries\na request",
    "filter 50 %, 4 workers": "filter\n50 %",
    "filter 10 %, 4 workers": "filter\n10 %",
    "filter 1 %, 4 workers": "filter\n1 %",
}
COLOURS = {"milvus": "#b8bec6", "cluster": "#7fb3d8", "standalone": "#1f6fb2"}
INK, FAINT = "#24292f", "#8b949e"


def draw(found: Results, file: Path) -> bool:
    """Write the picture; False, and none, where there is nothing to compare with Milvus."""
    sets = [data for data in found.datasets("serving") if _bars(found, data)]
    if not sets:
        return False
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "mishards", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(sets), 1, figsize=(9.0, 0.9 + 2.7 * len(sets)), squeeze=False, layout="constrained"
    )
    for axis, data in zip(axes[:, 0], sets, strict=True):
        _panel(axis, data, _bars(found, data))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    figure.suptitle(
        "Searches a second, as multiples of Milvus'", x=0.01, ha="left", fontsize=12, color=INK, weight="bold"
    )
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _bars(found: Results, data: str) -> dict[str, dict[str, tuple[float, float]]]:
    """By row and system: (multiple of Milvus' QPS, recall); only rows that Milvus has."""
    bars: dict[str, dict[str, tuple[float, float]]] = {}
    for row in ROWS:
        figures = {system: found.figures("serving", data, system, row) for system in COLOURS}
        ratios = {system: found.ratio("serving", data, row, "qps", (system, "milvus")) for system in COLOURS}
        if ratios["milvus"] and any(ratios[system] for system in COLOURS if system != "milvus"):
            bars[row] = {system: (ratio, figures[system]["recall"]) for system, ratio in ratios.items() if ratio}
    return bars


def _panel(axis: Any, data: str, bars: dict[str, dict[str, tuple[float, float]]]) -> None:
    width = 0.27
    systems = [system for system in COLOURS if any(system in row for row in bars.values())]
    for place, system in enumerate(systems):
        shift = (place - (len(systems) - 1) / 2) * width
        at = [n + shift for n, row in enumerate(bars.values()) if system in row]
        values = [row[system] for row in bars.values() if system in row]
        axis.bar(at, [ratio for ratio, _ in values], width * 0.92, color=COLOURS[system], label=TITLES[system])
        for x, (ratio, recall) in zip(at, values, strict=True):
            axis.annotate(
                f"{ratio:.1f}",
                (x, ratio),
                (0, 2),
                textcoords="offset points",
                ha="center",
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
            inside = "white" if system == "standalone" else INK
            axis.annotate(
                f"{recall:.2f}", (x, 0), (0, 3), textcoords="offset points", ha="center", color=inside, fontsize=6.5
            )
    axis.axhline(1, color=FAINT, linewidth=0.8, zorder=0)
    axis.set_xticks(range(len(bars)), [ROWS[row] for row in bars], color=INK)
    axis.set_yticks([])
    axis.margins(x=0.01, y=0.14)
    axis.tick_params(length=0)
    axis.set_title(f"{data}  (inside the bars: recall@10)", loc="left", color=FAINT, fontsize=9)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)
