"""Writes docs/performance.md and its plot from a run's figures, and tells them on the terminal.

Every absolute number stands beside its ratio to plain forwarding or to the C forwarder of the same
rounds, and beside what its row encrypts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from bench import figures, star
from bench.figures import Summary
from bench.rows import UNENCRYPTED_DAEMONS

PAGE = "performance.md"
PLOT = "performance.png"
# CPUs that other programs may keep busy before the ratios say little.
_QUIET = 0.2


@dataclass(frozen=True)
class Goal:
    """A figure to reach: its name, what was measured, the bound, whether it is a floor."""

    name: str
    measured: Summary | None
    bound: float
    floor: bool = True
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Reached or not, by the median."""
        if self.measured is None:
            return "not measured"
        median = self.measured.median
        good = median >= self.bound if self.floor else median <= self.bound
        return "reached" if good else "**missed**"


def goals(result: dict[str, Any]) -> list[Goal]:
    """The figures to reach, from the rounds of one run."""
    rounds = result["rounds"]

    def ratio(metric: str, row: str, other: str | None) -> Summary | None:
        return figures.ratio(rounds, metric, row, other) if other else None

    best = {
        metric: figures.best_of(rounds, metric, UNENCRYPTED_DAEMONS) for metric in ("tcp1", "kpps")
    }
    full = [
        each
        for each in result["scale"]
        if each["plane"] == "userspace"
        and (each["tunnels"], each["prefixes"]) == (64, 192)
        and each.get("heap_octets_per_packet") is not None
    ]
    heap = [each["heap_octets_per_packet"] for each in full]
    size = full[0]["heap"] if full else "the product"
    lost = [
        each["userspace"]["lost_tcp"] for each in rounds if "lost_tcp" in each.get("userspace", {})
    ]
    return [
        Goal("kernel plane TCP / plain", ratio("tcp1", "kernel", "plain"), 0.95),
        Goal("the same beside plain with complete checksums",
             ratio("tcp1", "kernel", "plain_checksums"), 0.95),
        Goal("the same behind the kernel's forwarding", ratio("tcp1", "kernel_routed", "plain"),
             0.95),
        Goal("kernel plane packet rate / plain", ratio("kpps", "kernel", "plain"), 0.92),
        Goal("the same behind the kernel's forwarding", ratio("kpps", "kernel_routed", "plain"),
             0.92),
        Goal("userspace TCP / C TUN forwarder", ratio("tcp1", "userspace", "c_tun"), 1.0),
        Goal("the same, to be with GSO batches", ratio("tcp1", "userspace", "c_tun"), 2.0),
        Goal("userspace's own loss under TCP, packets", figures.summary(lost), 0, False),
        Goal("userspace packet rate / C TUN forwarder", ratio("kpps", "userspace", "c_tun"), 1.0),
        Goal(f"userspace TCP / best unencrypted daemon ({_label(result, best['tcp1'])})",
             ratio("tcp1", "userspace", best["tcp1"]), 1.7),
        Goal(f"userspace packet rate / best unencrypted daemon ({_label(result, best['kpps'])})",
             ratio("kpps", "userspace", best["kpps"]), 1.7),
        Goal(f"heap octets per packet, 64 peers, heap of {size}", figures.summary(heap),
             1, False),
        Goal("added round trip of the kernel plane, median",
             figures.difference(rounds, "rtt_us", "kernel", "plain"), 1, False, " us"),
        Goal("the same behind the kernel's forwarding",
             figures.difference(rounds, "rtt_us", "kernel_routed", "plain"), 1, False, " us"),
    ]  # fmt: skip


def tell(result: dict[str, Any]) -> None:
    """The goals and the rows, as plain lines."""
    for goal in goals(result):
        shown = show(goal.measured, goal.unit)
        print(f"{goal.name}: {shown} (to reach {_bound(goal)}) {goal.verdict.strip('*')}")
    for line in rows_table(result):
        print(line)


def write(result: dict[str, Any], docs: Path) -> None:
    """Write the page and the plot into `docs`."""
    plot(result, docs / PLOT)
    (docs / PAGE).write_text(page(result))


def page(result: dict[str, Any]) -> str:
    """The whole page: page.md with the tables in it."""
    template = Template(Path(__file__).with_name("page.md").read_text())
    fragments = sum(
        sum(figures.values(result["rounds"], name, "fragments")) for name in result["rows"]
    )
    machine = result["machine"]
    versions = [[name, text] for name, text in sorted(result["versions"].items())]
    versions.append(["Linux", f"{machine['kernel']} ({machine['architecture']})"])
    versions.append(["CPU", f"{machine['cpu']}, {machine['cpus']} of them"])
    return template.substitute(
        run=_run(result),
        goals=_joined(_goals_table(result)),
        plot=PLOT,
        rows=_joined(rows_table(result)),
        cpu=_joined(_cpu_table(result)),
        loss=_joined(_loss_table(result)),
        scale=_joined(_scale_table(result)),
        home_agent=_home_agent(result),
        star=_joined(_star_table(result)),
        fragments=fragments,
        versions=_joined(_table(["", "version"], versions)),
    )


def rows_table(result: dict[str, Any]) -> list[str]:
    """The main table: absolute figures with their ratios, and what is encrypted."""
    rounds = result["rounds"]
    lines = []
    for name, row in result["rows"].items():
        base = "plain_offloads" if name.endswith("_offloads") else "plain"
        if not figures.values(rounds, name, "kpps"):
            lines.append([row["label"], "failed", "", "", "", row["secrecy"]])
            continue
        lines.append([
            row["label"],
            _beside(rounds, "tcp1", name, base, "{:.2f}"),
            _beside(rounds, "tcp8", name, base, "{:.2f}"),
            _beside(rounds, "kpps", name, base, "{:.0f}") + _sender(rounds, name),
            show(figures.ratio(rounds, "kpps", name, "c_tun")),
            row["secrecy"],
        ])  # fmt: skip
    head = ["", "TCP, Gbit/s", "TCP, 8 flows", "packets of 64 octets, 1000/s",
            "packets / C TUN", "what is encrypted"]  # fmt: skip
    return _table(head, lines)


def show(found: Summary | None, unit: str = "") -> str:
    """A ratio or number with its range."""
    if found is None:
        return "-"
    digits = 0 if found.median == int(found.median) and abs(found.median) >= 10 else 2
    text = f"{found.median:.{digits}f}{unit}"
    if found.rounds > 1:
        text += f" ({found.least:.{digits}f} to {found.most:.{digits}f})"
    return text


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars of the ratios to plain forwarding, with their range over the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in result["rows"] if not name.endswith("_offloads") and name != "plain"]
    names = [name for name in names if figures.values(result["rounds"], name, "kpps")][::-1]
    panels = (("tcp1", "TCP, one flow"), ("kpps", "packets of 64 octets"))
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.45 * len(names) + 1.6), sharey=True)
    for axis, (metric, title) in zip(axes, panels, strict=True):
        for at, name in enumerate(names):
            found = figures.ratio(result["rounds"], metric, name, "plain")
            if found is None:
                continue
            row = result["rows"][name]
            colour = "#1f6f8b" if row["ours"] else "#9a9a9a"
            hatch = "//" if row["secrecy"].startswith("all user") else ""
            error = [[found.median - found.least], [found.most - found.median]]
            axis.barh(at, found.median, color=colour, hatch=hatch, edgecolor="white",
                      xerr=error, ecolor="black", capsize=2)  # fmt: skip
            axis.text(found.most + 0.02, at, f"{found.median:.2f}", va="center", fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("share of plain forwarding, WAN packets of at most 1500 octets", fontsize=8)
        axis.set_xlim(0, max(1.15, axis.get_xlim()[1]))
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), [result["rows"][name]["label"] for name in names],
                       fontsize=8)  # fmt: skip
    figure.text(0.01, 0.01, "hatched: user packets encrypted; others not. Lines: least and most "
                f"of {len(result['rounds'])} rounds.", fontsize=8)  # fmt: skip
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _run(result: dict[str, Any]) -> str:
    rounds, asked = len(result["rounds"]), result["effort"]["rounds"]
    short = "" if rounds == asked else f" (of {asked}: there was no time for more)"
    text = (
        f"Run from {result['began']} to {result['ended']}: {rounds} rounds{short}, "
        f"{result['effort']['tcp_s']} s of each TCP test, {result['effort']['trial_s']} s of each "
        "trial of a packet rate. Load average before the start: "
        f"{result['machine']['load_before']:.2f}."
    )
    others = figures.summary(
        [
            v
            for name in result["rows"]
            for v in figures.values(result["rounds"], name, "busy_before")
        ]
    )
    if others:
        text += (
            f" Of the {result['machine']['cpus']} CPUs other programs kept {others.median:.2f} "
            f"busy just before a row, median, and {others.most:.2f} at most."
        )
        if others.median > _QUIET:
            text += (
                " **The machine was not quiet: this run decides none of the figures below**, rows "
                "of one round differ by a factor of two for that alone. Repeat it where nothing "
                "else runs."
            )
    if result["machine"].get("nice"):
        text += (
            f" Everything that was measured ran at nice {result['machine']['nice']}, before other "
            "programs of the machine; ksoftirqd did not."
        )
    failed = [
        each["row"] + ("" if each["round"] is None else f" in round {each['round'] + 1}")
        for each in result["errors"]
    ]
    return text + (f" Not measured, because it failed: {', '.join(failed)}." if failed else "")


def _goals_table(result: dict[str, Any]) -> list[str]:
    return _table(
        ["what", "measured", "to reach", "by the median"],
        [
            [goal.name, show(goal.measured, goal.unit), _bound(goal), goal.verdict]
            for goal in goals(result)
        ],
    )


def _cpu_table(result: dict[str, Any]) -> list[str]:
    rounds = result["rounds"]
    lines = []
    for name, row in result["rows"].items():
        if not figures.values(rounds, name, "kpps"):
            continue
        base = "plain_offloads" if name.endswith("_offloads") else "plain"
        lines.append([
            row["label"],
            _beside(rounds, "cpu_us", name, base, "{:.1f}"),
            _plain(rounds, "daemon_cpu_us", name, "{:.1f}"),
            _plain(rounds, "machine_cpu_us", name, "{:.1f}"),
            _beside(rounds, "rtt_us", name, base, "{:.0f}"),
            show(figures.difference(rounds, "rtt_us", name, base)),
            _plain(rounds, "rtt_p99_us", name, "{:.0f}"),
            _plain(rounds, "retransmits1", name, "{:.0f}"),
            row["secrecy"],
        ])  # fmt: skip
    head = ["", "CPU us a packet", "of it in the routers' programs", "machine", "median RTT, us",
            "RTT more than plain, us", "RTT 99 %, us", "TCP retransmissions",
            "what is encrypted"]  # fmt: skip
    return _table(head, lines)


def _loss_table(result: dict[str, Any]) -> list[str]:
    rounds = result["rounds"]
    lines = []
    for name, row in result["rows"].items():
        if not row["ours"] or not figures.values(rounds, name, "kpps"):
            continue
        cells = [row["label"]]
        for phase in ("tcp", "paced", "flood"):
            lost = figures.values(rounds, name, f"lost_{phase}")
            received = figures.values(rounds, name, f"received_{phase}")
            share = sum(lost) / max(1, sum(received))
            cells.append(f"{sum(lost):.0f} of {sum(received):.0f} ({share:.2%})")
        lines.append(cells)
    return _table(["all rounds", "TCP, 1 and 8 flows", "paced", "search, overload"], lines)


def _scale_table(result: dict[str, Any]) -> list[str]:
    lines = []
    firsts: dict[str, dict[str, Any]] = {}
    for each in result["scale"]:
        room = each.get("heap", "-")
        if "refused_with" in each:
            room += f" ({each['refused_with']} is too little)"
        cells = [each["plane"], str(each["tunnels"]), str(each["prefixes"]), room]
        if "refused" in each:
            lines.append([*cells, f"refused: {each['refused']}", "", "", "", "", ""])
            continue
        first = firsts.setdefault(each["plane"], each)
        rate = f"{each['kpps']:.0f} ({each['kpps'] / first['kpps']:.2f})" if first["kpps"] else "-"
        heap = each.get("heap_octets_per_packet")
        lines.append([
            *cells,
            rate + (" s" if each["generator"] else ""),
            _number(each, "swap_ms", "{:.2f}"),
            _number(each, "move_ms", "{:.2f}"),
            _number(each, "find_ns", "{:.0f}"),
            "-" if heap is None else f"{heap:.3f}",
            _number(each, "table_omitted", "{:.0f}"),
        ])  # fmt: skip
    head = ["plane", "direct tunnels", "prefixes", "heap",
            "1000 packets/s (to the first of the plane)", "change, ms", "move, ms", "lookup, ns",
            "heap octets a packet", "left out"]  # fmt: skip
    return _table(head, lines)


def _star_table(result: dict[str, Any]) -> list[str]:
    rounds = result.get("star", [])
    lines = []
    for name, (label, _) in star.ROWS.items():
        lines.append([
            label,
            _beside(rounds, "tcp1", name, "plain", "{:.2f}"),
            _beside(rounds, "kpps", name, "plain", "{:.0f}") + _sender(rounds, name),
            _plain(rounds, "rtt_us", name, "{:.0f}"),
            show(figures.difference(rounds, "rtt_us", name, "plain")),
        ])  # fmt: skip
    head = ["", "TCP, Gbit/s", "packets of 64 octets, 1000/s", "median RTT, us",
            "RTT more than plain, us"]  # fmt: skip
    return _table(head, lines)


def _home_agent(result: dict[str, Any]) -> str:
    if not result["home_agent"]:
        return ""
    lines = []
    for each in result["home_agent"]:
        empty, restart = each["empty"], each["restart"]
        lines.append([
            str(each["routers"]),
            f"{empty['median_ms']:.2f}",
            f"{empty['p99_ms']:.2f}",
            f"{restart['median_ms']:.2f}",
            f"{restart['p99_ms']:.2f}",
        ])  # fmt: skip
    head = (
        "A home agent has as many tunnels as routers. CPU time of its core for one registration, "
        "while all\nregister within ten seconds of its start, with an empty disk (each tells the "
        "others of a network) and\nafter a restart:\n\n"
    )
    names = ["routers", "median, ms", "99 %, ms", "restart: median, ms", "99 %, ms"]
    return head + _joined(_table(names, lines))


def _beside(rounds: figures.Rounds, metric: str, row: str, base: str, form: str) -> str:
    found = figures.summary(figures.values(rounds, row, metric))
    if found is None:
        return "-"
    part = figures.ratio(rounds, metric, row, base)
    return f"{form.format(found.median)} ({part.median:.2f})" if part else form.format(found.median)


def _plain(rounds: figures.Rounds, metric: str, row: str, form: str) -> str:
    found = figures.summary(figures.values(rounds, row, metric))
    return "-" if found is None else form.format(found.median)


def _sender(rounds: figures.Rounds, name: str) -> str:
    found = figures.values(rounds, name, "generator")
    return " s" if found and sum(found) * 2 > len(found) else ""


def _number(each: dict[str, Any], key: str, form: str) -> str:
    return form.format(each[key]) if each.get(key) is not None else "-"


def _label(result: dict[str, Any], name: str | None) -> str:
    return result["rows"][name]["label"] if name else "none measured"


def _bound(goal: Goal) -> str:
    return f"at {'least' if goal.floor else 'most'} {goal.bound:g}{goal.unit}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    made = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return made + ["| " + " | ".join(line) + " |" for line in lines]


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines)
