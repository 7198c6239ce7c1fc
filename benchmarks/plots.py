"""Figures of `growth` as PNG, over the number of tenants. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.growth import PROCESSES, Results

Lines = Mapping[str, Sequence[float]]
_SPREADS = ("uniform", "zipf")


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots into `folder` and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = results.sizes
    tenants = [size.tenants for size in sizes]
    cpu = {
        f"{process}, {spread}": [
            median(w.cpu[process] for w in size.windows[spread]) * 1e6 for size in sizes
        ]
        for spread in _SPREADS
        for process in PROCESSES
    }
    p99 = {
        spread: [median(w.p99 for w in size.windows[spread]) * 1e3 for size in sizes]
        for spread in _SPREADS
    }
    memory = {
        f"{process}, {kind}": [getattr(size, kind)[process] / 2**20 for size in sizes]
        for process in PROCESSES
        for kind in ("idle", "touched", "forgotten")
        if all(getattr(size, kind) for size in sizes)
    }
    start = {part: [size.start[part] for size in sizes] for part in ("router", "worker")}
    return [
        _plot(folder / "growth-cpu.png", tenants, cpu, "CPU a message, µs"),
        _plot(folder / "growth-p99.png", tenants, p99, "p99, ms"),
        _plot(folder / "growth-memory.png", tenants, memory, "memory (USS), MiB"),
        _plot(folder / "growth-start.png", tenants, start, "start, s"),
    ]


def _plot(path: Path, tenants: Sequence[int], lines: Lines, label: str) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in lines.items():
        axes.plot(tenants, values, marker="o", label=name)
    axes.set(xscale="log", xlabel="tenants", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
