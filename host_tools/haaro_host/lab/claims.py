"""The demo's claims, each judged by captures, hashes, the probe or the internet's own counters."""

from __future__ import annotations

from haaro_host.lab import evidence as words
from haaro_host.lab import topology
from haaro_host.lab.evidence import Evidence, Message
from haaro_host.lab.facts import Claim, Facts
from haaro_host.lab.plan import HOME_AGENT, OFFICES, Office

DIRECT_PATH_LIMIT_S = 1.0
OUTAGE_LIMIT_S = 5.0
_ACCEPTED = (0, 1)


def judge(facts: Facts, seen: Evidence) -> list[Claim]:
    """Every claim of the demo, in the order of the story."""
    return [
        _registered(facts, seen),
        *_signalling(facts, seen),
        *_traffic(facts, seen),
        *_switches(facts),
        *_conduct(facts, seen),
    ]


def _registered(facts: Facts, seen: Evidence) -> Claim:
    accepted = [
        office.name
        for office in OFFICES
        if any(each.code in _ACCEPTED for each in seen.find(words.REPLY, None, office))
    ]
    text = ", ".join(f"{name} {value:.2f} s" for name, value in facts.registered_s.items())
    everybody = len(accepted) == len(facts.registered_s) == len(OFFICES)
    return Claim("A, B and C registered with the home agent", everybody,
                 f"Replies seen for {', '.join(accepted) or 'nobody'}; {text}")  # fmt: skip


def _signalling(facts: Facts, seen: Evidence) -> list[Claim]:
    """The messages of RFC 6521 8.2 between the router that moves first and its peer."""
    peer, mover = seen.one, seen.other
    since = facts.first_packet_at or 0.0
    steps: list[tuple[str, list[Message]]] = [
        (f"HoTI from {mover.name} by the HA tunnel",
         [m for m in seen.find(words.HOTI, mover, peer, since) if m.in_home_agent_tunnel]),
        (f"CoTI from {mover.name}'s care-of address, outside the tunnel",
         [m for m in seen.find(words.COTI, mover, peer, since) if m.outer is None]),
        (f"HoT from {peer.name} by the HA tunnel",
         [m for m in seen.find(words.HOT, peer, mover, since) if m.in_home_agent_tunnel]),
        (f"CoT from {peer.name} to {mover.name}'s care-of address",
         [m for m in seen.find(words.COT, peer, mover, since)
          if m.destination == mover.care_of_address]),
        (f"Registration Request from {mover.name}'s care-of address to {peer.name}",
         [m for m in seen.find(words.REQUEST, mover, peer, since)
          if m.source == mover.care_of_address]),
        (f"{peer.name}, who did not know {mover.name}, solicits the HA (S bit)",
         [m for m in seen.find(words.REQUEST, peer, None, since) if m.solicits]),
        (f"Registration Reply from {peer.name} to {mover.name}: accepted",
         [m for m in seen.find(words.REPLY, peer, mover, since) if m.code in _ACCEPTED]),
    ]  # fmt: skip
    claims = []
    for text, found in steps:
        said = "not seen"
        if found:
            said = f"seen {1000 * (found[0].time - since):.1f} ms after the first packet"
        claims.append(Claim(text, bool(found), said))
    return claims


def _traffic(facts: Facts, seen: Evidence) -> list[Claim]:
    peer, mover = seen.one, seen.other
    since = facts.first_packet_at or 0.0
    turned = facts.switches.get("to_direct")
    before = seen.by_home_agent(mover, peer).count(since, turned.until if turned else since)
    claims = [Claim("the first packets went by the home agent", before > 0, f"{before} packets")]
    for source, destination in ((mover, peer), (peer, mover)):
        claims.append(_keepalive_first(seen, source, destination))
    through = facts.direct_packets_through_ha
    seconds = facts.direct_path_s
    return [
        *claims,
        Claim(
            f"direct path within {DIRECT_PATH_LIMIT_S:.0f} s of the first packet",
            seconds is not None and seconds < DIRECT_PATH_LIMIT_S,
            "not seen" if seconds is None else f"{seconds:.3f} s, both directions",
        ),
        Claim(
            "while the path was direct, no packet went through the home agent",
            bool(facts.direct_spans) and through == 0,
            f"{through} packets in {len(facts.direct_spans)} direct spans",
        ),
    ]


def _keepalive_first(seen: Evidence, source: Office, destination: Office) -> Claim:
    keepalive = seen.keepalive_between(source, destination)
    traffic = seen.direct(source, destination).first()
    good = keepalive is not None and traffic is not None and keepalive < traffic
    lead = (
        f"{1000 * (traffic - keepalive):.1f} ms before the first packet"
        if keepalive is not None and traffic is not None
        else "not seen"
    )
    text = f"{source.name} sent a keepalive through the direct tunnel before it sent traffic"
    return Claim(text, good, lead)


def _switches(facts: Facts) -> list[Claim]:
    claims = []
    for name, text in (
        ("to_direct", "no packet lost when traffic moved to the direct tunnel"),
        ("return", "no packet lost when traffic came back to the direct tunnel"),
    ):
        switch = facts.switches.get(name)
        lost = switch.lost_total if switch else None
        claims.append(Claim(text, lost == 0, _lost_text(facts, name)))
    cut = facts.switches.get("fall_back")
    claims.insert(
        1,
        Claim(
            f"direct path cut: fell back to the HA within {OUTAGE_LIMIT_S:.0f} s",
            cut is not None and cut.outage_s <= OUTAGE_LIMIT_S,
            f"outage {cut.outage_s:.2f} s, {_lost_text(facts, 'fall_back')}" if cut else "no",
        ),
    )
    claims.insert(
        2,
        Claim(
            "cut mended: returned to the direct tunnel by itself",
            "return" in facts.switches,
            f"after {facts.switches['return'].seconds:.2f} s"
            if "return" in facts.switches
            else "did not return",
        ),
    )
    return claims


def _conduct(facts: Facts, seen: Evidence) -> list[Claim]:
    wrong = seen.violations()
    messages = len(seen.messages)
    filtered = topology.filtered(facts.filter)
    bad = {key: value for key, value in filtered.items() if value}
    hashes = f"{len(facts.transfers)} transfers"
    fragments = seen.unknown_fragments()
    return [
        Claim("every TCP transfer arrived unchanged (SHA-256 at both ends)",
              facts.all_hashes_match, hashes),
        Claim("no HoTI or HoT outside the HA tunnel, no CoTI or Request without the CoA as source",
              messages > 0 and not wrong, wrong[0] if wrong else f"{messages} messages"),
        Claim("the internet's filter dropped nothing: no wrong source, no mobile prefix outside",
              bool(filtered) and not bad, str(bad) if bad else f"{len(filtered)} counters are 0"),
        Claim("the captures are complete",
              facts.recorded.get("dropped") == 0 and facts.recorded.get("packets", 0) > 0
              and fragments == 0,
              f"{facts.recorded.get('packets', 0)} packets, "
              f"{facts.recorded.get('dropped', 'unknown')} missed, {fragments} outer fragments"),
    ]  # fmt: skip


def _lost_text(facts: Facts, name: str) -> str:
    switch = facts.switches.get(name)
    if switch is None:
        return "not measured"
    return ", ".join(f"{way}: {count} lost" for way, count in switch.lost.items())


def who_to_whom(seen: Evidence) -> dict[str, int]:
    """Packets that entered the internet, by "FROM>TO"; FROM and TO are A, B, C or HA."""
    names = {office.care_of_address: office.name for office in OFFICES} | {HOME_AGENT: "HA"}
    return seen.pairs(names)
