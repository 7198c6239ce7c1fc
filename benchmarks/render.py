"""Tables for docs/performance.md, out of what `python -m benchmarks --json FILE` has saved.

python -m benchmarks.render FILE

Prints Markdown for growth, scale-out, and what a cluster would need by the model of scale-out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks import growth, scale

_RATES = (10_000, 50_000, 100_000)


class _Saved(msgspec.Struct):
    growth: growth.Results | None = None
    scale: scale.Results | None = None


def main() -> None:
    """Print what the file has."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    saved = msgspec.json.decode(parser.parse_args().file.read_bytes(), type=_Saved)
    if saved.growth is not None:
        print("\n\n".join((_cpu(saved.growth), _memory(saved.growth), _onboarding(saved.growth))))
    if saved.scale is not None:
        print(f"\n{_scale(saved.scale)}\n\n{_cluster(saved.scale)}")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ruler, *rows))


def _cpu(results: growth.Results) -> str:
    rows = []
    for spread in ("uniform", "zipf"):
        one = median(w.total for w in results.sizes[0].windows[spread])
        for size in results.sizes:
            windows = size.windows[spread]
            ratios = [w.total / one for w in windows]
            rows.append(
                (
                    f"{size.tenants:,} {spread}",
                    *(f"{median(w.cpu[p] for w in windows) * 1e6:.0f}" for p in growth.PROCESSES),
                    f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{size.steady(results.rate) / one:.2f}" if spread == "uniform" else "",
                    f"{median(w.p50 for w in windows) * 1e3:.2f}",
                    f"{median(w.p99 for w in windows) * 1e3:.2f}",
                )
            )
    heads = (
        *("tenants", "router, µs", "worker, µs", "nats-server, µs", "to one tenant", "steady"),
        *("p50, ms", "p99, ms"),
    )
    return table(heads, rows)


def _memory(results: growth.Results) -> str:
    rows = [
        (
            f"{size.tenants:,}",
            f"{size.start['router']:.1f}",
            f"{size.start['worker']:.1f}",
            *(
                growth.each_tenant(results, size, kind, process)
                for process in ("router", "worker")
                for kind in ("idle", "touched", "forgotten")
            ),
            *((f"{size.cold.p50 * 1e3:.2f}", f"{size.cold.p99 * 1e3:.2f}") if size.cold else "--"),
            f"{size.disk['KV_tenants'] / 2**20:.1f}",
        )
        for size in results.sizes
    ]
    heads = (
        *("tenants", "start of router, s", "of worker, s", "router, bytes a tenant", "all active"),
        *("forgotten", "worker, bytes a tenant", "all active", "forgotten", "cold p50, ms"),
        *("cold p99, ms", "KV on disk, MiB"),
    )
    return table(heads, rows)


def _onboarding(results: growth.Results) -> str:
    made = results.onboarding
    if made is None:
        return ""
    row = (
        f"{made.tenants:,}",
        f"{made.seconds:.1f}",
        f"{made.halves[0]:.1f} and {made.halves[1]:.1f}",
        f"{made.told:.1f}",
        f"{made.cpu['tenants'] * 1e6:.0f}",
        f"{made.disk['KV_tenants'] / made.tenants:.0f}",
        f"{made.disk['JOURNAL'] / made.tenants:.0f}",
    )
    heads = (
        *("tenants made", "seconds", "halves", "with their events", "tenants worker, µs each"),
        *("KV, bytes each", "journal, bytes each"),
    )
    return table(heads, [row])


def _scale(results: scale.Results) -> str:
    rows = [
        (
            f"{each.count} and {each.count}, {results.cores[each.who]} cores {each.who}",
            f"{each.measured:,.0f}",
            f"{each.predicted.rate:,.0f}",
            each.predicted.by,
            f"{each.measured / each.predicted.rate:.2f}",
            f"{each.measured / each.own.rate:.2f}",
            *(f"{each.cpu[stage] * 1e6:.0f}" for stage in scale.STAGES),
            f"{each.load * 1e6:.0f}",
        )
        for each in scale.checks(results)
    ]
    heads = (
        *(
            "routers and workers",
            "answers a second",
            "model",
            "limit",
            "measured to model",
            "with its own CPU",
        ),
        *("router, µs", "worker, µs", "nats-server, µs", "load, µs"),
    )
    return table(heads, rows)


def _cluster(results: scale.Results) -> str:
    one = next(each for each in scale.checks(results) if each.who == "apart")
    rows = []
    for rate in _RATES:
        need = scale.needed(one.cpu, rate)
        rows.append((f"{rate:,}", *(str(need[stage]) for stage in scale.STAGES)))
    heads = ("messages a second", "routers", "workers (no work of their own)", "cores, nats-server")
    return table(heads, rows)


if __name__ == "__main__":
    main()
