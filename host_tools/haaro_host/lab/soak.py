"""The soak: traffic between C and A for minutes, across several token renewals.

Checks by captures that the direct path was not interrupted once, that tokens were renewed, and
that no signalling took a forbidden path; samples each router's heap from its status.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from haaro_host.lab import evidence as words
from haaro_host.lab import processes
from haaro_host.lab.demo import Demo, Options
from haaro_host.lab.facts import Claim
from haaro_host.lab.lab import ROUTERS
from haaro_host.lab.processes import write_atomically
from haaro_host.lab.system import LabError

SCHEMA = "haaro.lab.soak/1"
_SAMPLE_EVERY_S = 30.0
_SILENCE_LIMIT_S = 1.0
_WANTED_RENEWALS = 2
_STATE_LIMIT = 48 * 1024
# B hears of C when it renews its registration, four minutes after the start; growth counts from
# where everybody knows everything.
_SETTLED_S = 300.0
_EARLY_S = 120.0
# A list or dict that grows once by doubling is not growth; a leak over minutes is more than this.
_GROWTH_LIMIT = 1024
_PACE_MBIT = 2.0


@dataclass
class Soak:
    """One soak of `minutes`; `run` fills the rest."""

    options: Options
    minutes: float
    console: Console
    samples: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def run(self) -> bool:
        """Run it and write soak.json; True when every claim was observed."""
        demo = Demo(self.options, self.console)
        try:
            with demo.running():
                demo.first_contact()
                since = max(demo.facts.direct_spans[0][0].values())
                moving = demo.transfer("soak", _PACE_MBIT)
                try:
                    self._hold(demo)
                finally:
                    moving.stop()
                demo.note_transfer("soak", moving)
                until = time.time()
                gap = demo.longest_silence(since + 2.0, until)
            self._judge(demo, since, until, gap)
        except LabError as error:
            self.claims.append(Claim("the soak ran to its end", False, str(error)))
        ok = bool(self.claims) and all(claim.observed for claim in self.claims)
        path = self.options.out / "soak.json"
        write_atomically(path, json.dumps(self._as_json(demo, ok), indent=2) + "\n")
        for claim in self.claims:
            mark = "[green]observed[/]" if claim.observed else "[bold red]NOT observed[/]"
            self.console.print(f"{mark}  {claim.text} [dim]({claim.evidence})[/]")
        return ok

    def _hold(self, demo: Demo) -> None:
        """Sample the routers each 30 s until the time is over."""
        began = time.monotonic()
        end = began + 60 * self.minutes
        due = began
        while True:
            now = time.monotonic()
            if now >= due:
                self._sample(demo, now - began)
                due += _SAMPLE_EVERY_S
            if now >= end:
                return
            processes.wait_until(lambda: False, min(due, end) - now, every_s=0.5)
            demo.check_alive()

    def _sample(self, demo: Demo, at: float) -> None:
        heaps = {}
        for node in ROUTERS:
            status = demo.lab.node_status(node)
            if status is None:
                raise LabError(f"router {node.upper()} does not answer")
            heaps[node.upper()] = status["heap"]
        self.samples.append({"at_s": round(at, 1), "heap": heaps})
        state = ", ".join(f"{name} {heap.get('state')}" for name, heap in heaps.items())
        demo.say(f"heap beyond modules and pools, octets: {state}")

    def _judge(self, demo: Demo, since: float, until: float, gap: float) -> None:
        seen = demo.seen
        strays = {
            source.name: seen.by_home_agent(source, destination).count(
                demo.facts.direct_spans[0][0][source.name], until
            )
            for source, destination in demo.ways()
        }
        renewed = seen.renewals(demo.mover, demo.peer)
        tested = len(seen.find(words.HOT, demo.peer, demo.mover, since))
        wrong = seen.violations()
        bad = {key: value for key, value in demo.facts.filter.items() if value}
        states = [
            heap.get("state", 0) for sample in self.samples for heap in sample["heap"].values()
        ]
        self.claims += [
            Claim("no packet of the hosts went by the home agent", not any(strays.values()),
                  str(strays)),
            Claim(f"the probe was never silent for more than {_SILENCE_LIMIT_S:.0f} s",
                  gap <= _SILENCE_LIMIT_S, f"longest silence {gap:.3f} s"),
            Claim(f"tokens were renewed at least {_WANTED_RENEWALS} times",
                  renewed >= _WANTED_RENEWALS, f"{renewed} renewals, {tested} HoT since"),
            Claim("no HoTI or HoT outside the HA tunnel, no CoTI or Request without the CoA as "
                  "source", not wrong, wrong[0] if wrong else f"{len(seen.messages)} messages"),
            Claim("the internet's filter dropped nothing", not bad, str(bad)),
            Claim("the captures are complete", demo.facts.recorded.get("dropped") == 0,
                  str(demo.facts.recorded)),
            Claim("the TCP transfer arrived unchanged (SHA-256 at both ends)",
                  demo.facts.all_hashes_match, f"{len(demo.facts.transfers)} transfers"),
            Claim(f"router state stays within {_STATE_LIMIT} octets of heap",
                  bool(states) and max(states) <= _STATE_LIMIT,
                  f"largest {max(states, default=0)}"),
            Claim("router state does not grow once everybody knows everybody",
                  all(value <= _GROWTH_LIMIT for value in self._growth().values()),
                  f"grown by {self._growth() or 'unknown: shorter than that'}"),
        ]  # fmt: skip

    def _growth(self) -> dict[str, int]:
        """{router: octets of state more at the end than after five minutes}."""
        settled = [sample["heap"] for sample in self.samples if sample["at_s"] >= _SETTLED_S]
        if not settled:
            return {}
        return {name: settled[-1][name]["state"] - settled[0][name]["state"] for name in settled[0]}

    def _state_at(self, since: float | None) -> dict[str, int]:
        """{router: octets of state} in the first sample since then, or in the last one."""
        for sample in self.samples if since is not None else self.samples[-1:]:
            if since is None or sample["at_s"] >= since:
                return {name: heap["state"] for name, heap in sample["heap"].items()}
        return {}

    def _as_json(self, demo: Demo, ok: bool) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "ok": ok,
            "minutes": self.minutes,
            "direct_path_s": demo.facts.direct_path_s,
            "transfers": demo.facts.transfers,
            "state_bytes": {"after_2_min": self._state_at(_EARLY_S), "end": self._state_at(None)},
            "state_growth_bytes": self._growth(),
            "samples": self.samples,
            "router_own_loss": demo.facts.own_loss(),
            "recorded": demo.facts.recorded,
            "claims": [vars(claim) for claim in self.claims],
        }
