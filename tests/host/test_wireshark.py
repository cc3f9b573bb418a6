"""The Wireshark dissector says the same as `haaro decode`, and as Wireshark's own where it can."""

import json
import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from haaro.wire import auth, extensions, ipv4, prefixes
from haaro.wire import registration as reg
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.decode import words
from haaro_host.decode.keys import Keys
from haaro_host.decode.packets import Datagram
from haaro_host.decode.report import report
from haaro_host.decode.text import escaped
from haaro_host.reply_codes import REPLY_CODES
from haaro_host.wireshark_cli import DISSECTOR, app
from tests.differential.generate import lines

DOCUMENT = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())
VECTORS = [vector for vector in DOCUMENT["vectors"] if vector["kind"] == "datagram"]
BY_ID = {vector["id"]: bytes.fromhex(vector["hex"]) for vector in VECTORS}
HOA, HA, COA = (ipv4.address(text) for text in ("192.0.2.129", "192.0.2.1", "198.51.100.10"))
SOURCE = DISSECTOR.read_text()

needs_tshark = pytest.mark.skipif(
    not shutil.which("tshark"), reason="tshark is missing: apt-get install tshark"
)


def tshark(path, *options):
    """Return [protocol layers] of each packet of the capture at `path`, from tshark's -T ek."""
    command = ["tshark", "-n", "-r", str(path), "-T", "ek", "-J", "haaro mip", *options]
    done = subprocess.run(
        [*command, "-X", f"lua_script:{DISSECTOR}"],
        capture_output=True, timeout=100, check=True,
        env={**os.environ, "HOME": str(path.parent)},  # without the user's own copy of it
    )  # fmt: skip
    assert b"Lua: " not in done.stderr, done.stderr.decode()
    rows = [json.loads(line, object_pairs_hook=_pairs) for line in done.stdout.splitlines()]
    return [row["layers"] for row in rows if "layers" in row]


def _pairs(pairs):
    """tshark writes a key twice where a name stands for a layer and for its fields."""
    out = {}
    for key, value in pairs:
        out[key] = out[key] + [value] if key in out and isinstance(out[key], list) else value
    return out


def capture(path, datagrams, port=434):
    """Write UDP datagrams from and to `port` as a pcap of bare IP packets."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for number, data in enumerate(datagrams):
        packet = ipv4.build_udp(COA, HA, 434, port, data)
        out += [struct.pack("<IIII", 1_700_000_000 + number, 0, len(packet), len(packet)), packet]
    path.write_bytes(b"".join(out))
    return path


def flat(layer, prefix):
    """Return {field: [values in order]} of one layer and all branches in it."""
    found = {}

    def walk(node):
        for key, value in node.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict):
                    walk(each)
                elif key.startswith(prefix):
                    found.setdefault(key.removeprefix(prefix), []).append(each)

    walk(layer)
    return found


def ours(data):
    """Return what the dissector's fields must be, by `haaro decode` without keys."""
    found = report(Datagram.whole(data), Keys())
    want: dict[str, list] = {"type": [str(found.type)]}

    def add(name, value):
        want.setdefault(name, []).append(value if isinstance(value, bool) else str(value))

    _fixed(found, add)
    for _, what, index in found.layout:
        if what == "extensions":
            _extension(found.extensions[index], add)
        elif what == "bad":
            add("bad", found.bad[index]["reason"])
        elif what == "ignored":
            add("ext_skipped", True)
        elif what == "unauthenticated":
            add("ext_unprotected", True)
        else:
            _authenticator(found.authentication, add)
    if found.verdict == "discard":
        add("discard", found.reason)
        add("stopped_at", found.offset)
    return want


def _fixed(found, add):
    names = {"cookie": "cookie", "token": "token", "nonce_index": "nonce_index", "code": "code",
             "lifetime": "lifetime", "hoa": "hoa", "ha": "ha", "coa": "coa", "rev_id": "rev_id",
             "home_domain": "rev_home_domain", "foreign_domain": "rev_foreign_domain",
             "next_header": "next_header", "a": "rev_a"}  # fmt: skip
    for key, value in found.fields.items():
        if key in ("cookie", "token"):
            add(key, bytes.fromhex(value).hex(":"))
        elif key in names:
            add(names[key], value)
        elif key == "flags":
            for letter in "sbdmgt":
                add("flags_" + letter, letter.upper() in value)
        elif key == "ident":
            add("ident", f"0x{value:016x}")
        elif key == "i":
            add("rev_i" if found.type == 7 else "rev_ack_i", value)


def _authenticator(one, add):
    for key in ("spi", "home_nonce_index", "care_of_nonce_index"):
        if one[key] is not None:
            add("auth_" + key, one[key])
    if one["authenticator"]:
        add("auth_authenticator", bytes.fromhex(one["authenticator"]).hex(":"))


def _extension(one, add):
    kind, subtype = one["type"], one["subtype"]
    names = {
        (44, 0): {"code": "utrp_code", "forced": "utrp_f", "keepalive": "utrp_keepalive"},
        (49, 1): {"o": "ro_o", "n": "ro_n", "s": "ro_s", "code": "ro_code"},
        (137, None): {"i": "revocation_support_i", "timestamp": "revocation_support_timestamp"},
        (144, 0): {"force": "utrq_f", "through_fa": "utrq_r", "encap": "utrq_encap"},
        (148, 0): {"plen": "mobnet_plen", "prefix": "mobnet_prefix"},
        (148, 1): {"code": "mobnet_code", "plen": "mobnet_plen", "prefix": "mobnet_prefix"},
        (148, 2): {"code": "mobnet_code", "plen": "mobnet_plen", "prefix": "mobnet_prefix"},
        (153, 1): {"a": "cap_a", "r": "cap_r", "s": "cap_s", "o": "cap_o"},
    }.get((kind, subtype), {})
    for key, name in names.items():
        add(name, one[key])
    if kind == 153 and one["hoa"]:
        add("cap_hoa", one["hoa"])
    for each in one.get("coas", []):
        add("coas", each)
    if "nai" in one:
        add("nai", escaped(one["nai"]))
    for router in one.get("routers", []):
        add("adv_hoa", router["hoa"])
        add("adv_outbound_only", router["outbound_only"])
        for prefix, plen, realm in router["prefixes"]:
            add("adv_network", f"{prefix}/{plen}")
            add("adv_plen", plen)
            add("adv_prefix", prefix)
            add("adv_realm", escaped(realm))


# Fields that `haaro decode` has no use for.
ONLY_THEIRS = {"flags", "flags_r", "flags_x", "ident_time", "reserved", "ext_type", "ext_subtype",
               "ext_length", "ext_data", "padding", "adv_d", "expert_discard", "expert_bad",
               "expert_unprotected"}  # fmt: skip


def compare(path, datagrams):
    """Assert that tshark's fields of each datagram are ours; return how many were compared."""
    layers = tshark(capture(path, datagrams))
    assert len(layers) == len(datagrams)
    compared = 0
    for data, layer in zip(datagrams, layers, strict=True):
        outer = layer["haaro"]
        got = flat(outer[0] if isinstance(outer, list) else outer, "haaro_haaro_")
        want = ours(data)
        assert {k: v for k, v in got.items() if k not in ONLY_THEIRS} == want, data.hex()
        compared += sum(map(len, want.values()))
    return compared


@needs_tshark
def test_each_vector_shows_the_same_fields_as_haaro_decode(tmp_path):
    datagrams = [data for data in BY_ID.values() if data]
    assert compare(tmp_path / "vectors.pcap", datagrams) > 350


@needs_tshark
def test_more_of_everything_shows_the_same_fields(tmp_path):
    """Delta prefixes with other masters, realms over a full dictionary, unprintable octets, NAI."""
    rich = reg.build_reply(2, 65535, HOA, HA, b"\x01" + bytes(7))
    networks = [(bytes([10, i >> 4, i << 4 & 255, 0]), 20 + i % 5, f"r{i}.x{i % 7}.example")
                for i in range(200)]  # fmt: skip
    data, _ = prefixes.build_advertisement([(HOA, True, networks), (COA, False, [(HA, 0, "")])])
    extensions.append_mobile_network_ack(rich, 3, b"\x0a\0\0\0", 9, implicit=True)
    extensions.append_prefix_advertisement(rich, data)
    extensions.append_nai(rich, b"a\x1b[2J\\\x7f\xff@x")
    extensions.append_care_of_addresses(rich, [COA] * 63)
    extensions.append_udp_tunnel_reply(rich, 64, True, 65535)
    auth.append_mobile_home(rich, 0xFFFFFFFF, auth.HMAC_SHA256, b"k" * 16)
    late = bytes(rich) + bytes([0, 0, 0, 148, 6, 0, 16, 10, 0, 0, 0, 200, 0])
    assert ours(late)["adv_realm"][-2] == "r199.x3.example"
    compare(tmp_path / "rich.pcap", [late, BY_ID["hoti"] + bytes([0, 200, 0, 131, 1, 65])])


@needs_tshark
@settings(
    deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(
            lambda data, at, cut, value: (
                data[: at % len(data)] + value + data[cut + at % len(data) :]
            ),
            st.sampled_from([data for data in BY_ID.values() if data[:1] not in (b"", b"\x04")]),
            st.integers(1, 160),
            st.integers(0, 3),
            st.binary(max_size=3),
        ),
        min_size=150,
        max_size=150,
    )
)
def test_damaged_datagrams_are_refused_for_the_same_reason_at_the_same_octet(tmp_path, datagrams):
    compare(tmp_path / "damaged.pcap", datagrams)


def advertisement(tail, kind=3):
    """Return a signed Reply (or Request) with an advertisement of one router and `tail`."""
    data = b"\x40" + HOA + tail
    return extended(bytes([50, 1]) + len(data).to_bytes(2, "big") + data, kind)


def extended(octets, kind=3):
    ident = bytes(8)
    reply = reg.build_reply(0, 300, HOA, HA, ident)
    message = reply if kind == 3 else reg.build_request(0x22, 300, HOA, HA, COA, ident)
    message.extend(octets)
    auth.append_mobile_home(message, 256, auth.HMAC_MD5, b"k" * 16)
    return bytes(message)


LONG = b"\x7f" + b"a" * 127
EDGES = {
    "realm of 253": (advertisement(b"\x00" + LONG + b"\x7d" + b"b" * 125 + b"\0"), None),
    "realm of 254": (
        advertisement(b"\x00" + LONG + b"\x7e" + b"b" * 126 + b"\0"),
        "realm_too_long",
    ),
    "realm with a zero": (advertisement(b"\x00\x03a\0b\0"), "realm_label"),
    "realm with a dot": (advertisement(b"\x00\x03a.b\0"), "realm_label"),
    "realm cut in a label": (advertisement(b"\x00\x03ab"), "realm_truncated"),
    "delta of 7 bits": (advertisement(b"\x08\x0a\0\x87\x05\0"), "delta_plen_below_8"),
    "delta of 8 bits": (advertisement(b"\x08\x0a\0\x88\x0b\0"), None),
    "master with host bits": (advertisement(b"\x0c\x0a\xff\0\x96\x80\0"), None),
    "info 2": (advertisement(b"\x42" + HOA), "info_2_63"),
    "advertisement in a request": (advertisement(b"", 1), "advertisement_not_in_reply"),
    "129 extensions": (extended(b"\xc8\0" * 129), None),
    "127 extensions": (extended(b"\xc8\0" * 127), None),
    "unknown skippable": (extended(b"\x81\0\x8f\1\0"), None),
    "malformed, valid, second": (
        extended(b"\x83\0" + b"\x83\1a" + b"\x83\1b", 1),
        "nai_length",
    ),
    "short second authenticator": (extended(b"") + b"\x20\2ab", None),
    "authenticator behind a HoTI": (BY_ID["hoti"] + b"\x20\2ab", None),
}


@needs_tshark
def test_the_edges_of_each_rule_are_the_same(tmp_path):
    for name, (data, reason) in EDGES.items():
        assert ours(data).get("bad", [None])[0] == reason, name
    assert compare(tmp_path / "edges.pcap", [data for data, _ in EDGES.values()]) > 200


@needs_tshark
def test_identifications_are_timestamps_before_and_after_2036(tmp_path):
    datagrams = [BY_ID["rrq-min"], extended(b"")]
    shown = [layer["haaro"] for layer in tshark(capture(tmp_path / "era.pcap", datagrams))]
    times = [flat(each, "haaro_haaro_")["ident_time"][0][:19] for each in shown]
    assert times == ["2023-10-14T05:26:40", "2036-02-07T06:28:16"]


@needs_tshark
def test_generated_messages_of_every_kind_show_the_same_fields(tmp_path):
    generated = [data for kind, data in lines(6521, 1000) if kind in "vm" and data]
    assert compare(tmp_path / "generated.pcap", generated) > 10_000


@needs_tshark
def test_messages_inside_the_tunnel_are_decoded_in_the_tunnel(tmp_path):
    inner = ipv4.build_udp(HOA, HA, 434, 434, BY_ID["hot"])
    layers = tshark(capture(tmp_path / "tunnel.pcap", [TUNNEL_HEADER + inner]))
    outer, inside = layers[0]["haaro"]
    assert (outer["haaro_haaro_type"], outer["haaro_haaro_next_header"]) == ("4", "4")
    assert inside["haaro_haaro_token"] == "ee:04:ec:b7:35:7d:b1:b5"


@needs_tshark
def test_a_datagram_that_was_not_captured_whole_says_so(tmp_path):
    path = capture(tmp_path / "whole.pcap", [BY_ID["rrq-nemo-nat-haaro"]])
    raw = path.read_bytes()
    for held in (20 + 8 + 10, 20 + 8 + 30):
        cut = raw[:32] + struct.pack("<I", held) + raw[36 : 40 + held]
        path.write_bytes(cut)
        assert flat(tshark(path)[0]["haaro"], "haaro_haaro_")["discard"] == ["captured_short"]


@needs_tshark
def test_the_largest_advertisement_is_shown_in_bounded_time(tmp_path):
    data = b"\x40" + HOA + b"\x00" + b"\x01a" * 127 + b"\x00" + b"\x00\xff\x00" * 20000
    message = reg.build_reply(0, 300, HOA, HA, bytes(8))
    extensions.append_prefix_advertisement(message, data)
    auth.append_mobile_home(message, 256, auth.HMAC_MD5, b"k" * 16)
    began = time.monotonic()
    layers = tshark(capture(tmp_path / "large.pcap", [bytes(message)]))
    assert time.monotonic() - began < 60
    assert len(flat(layers[0]["haaro"], "haaro_haaro_")["adv_realm"]) == 20001


# --- Wireshark's own dissector --------------------------------------------------------------------

# What it cannot read: messages 24 to 27 not at all, nothing behind an extension 50.
MIP_KNOWS = [
    vector["id"]
    for vector in VECTORS
    if vector["expect"].get("type", 24) < 24
    and not any(one["type"] == 50 for one in vector["expect"].get("exts", []))
]
SAME = {
    "type": "type", "flags": "flags", "s": "flags_s", "b": "flags_b", "d": "flags_d",
    "m": "flags_m", "g": "flags_g", "v": "flags_r", "t": "flags_t", "x": "flags_x", "code": "code",
    "life": "lifetime", "homeaddr": "hoa", "haaddr": "ha", "coa": "coa", "ident": "ident_time",
    "ext_type": "ext_type", "ext_len": "ext_length", "auth_auth": "auth_authenticator",
    "rev_a": "rev_a", "rev_i": "rev_i", "ack_i": "rev_ack_i", "rev_hda": "rev_home_domain",
    "rev_fda": "rev_foreign_domain", "revid": "rev_id", "ext_rev_i": "revocation_support_i",
    "ext_rev_tstamp": "revocation_support_timestamp", "nattt_nexthdr": "next_header",
    "ext_utrq_f": "utrq_f", "ext_utrq_r": "utrq_r", "ext_utrq_encaptype": "utrq_encap",
    "ext_utrp_f": "utrp_f", "ext_utrp_code": "utrp_code", "ext_utrp_keepalive": "utrp_keepalive",
    "ext_mne_code": "mobnet_code", "ext_mne_prefix_length": "mobnet_plen",
    "ext_mne_prefix": "mobnet_prefix",
}  # fmt: skip


@needs_tshark
def test_wiresharks_own_dissector_agrees_where_it_knows_the_message(tmp_path):
    datagrams = [BY_ID[name] for name in MIP_KNOWS]
    layers = tshark(capture(tmp_path / "mip.pcap", datagrams), "-o", "haaro.also_mip:TRUE")
    compared = 0
    for name, layer in zip(MIP_KNOWS, layers, strict=True):
        assert "_ws_malformed" not in layer, name
        theirs = flat(layer["mip"], "mip_mip_")
        mine = flat(layer["haaro"], "haaro_haaro_")
        assert [int(spi, 0) for spi in theirs.get("auth_spi", [])] == [
            int(spi) for spi in mine.get("auth_spi", [])
        ]
        if name == "ext-after-auth":  # mip decodes what nothing protects
            theirs = {key: value for key, value in theirs.items() if "_mne_" not in key}
        for key in SAME.keys() & theirs.keys():
            assert mine[SAME[key]] == theirs[key], (name, key)
            compared += len(theirs[key])
    assert len(MIP_KNOWS) >= 12
    assert compared > 150


@needs_tshark
def test_what_wireshark_alone_cannot_read_is_why_the_dissector_exists(tmp_path):
    datagrams = [BY_ID["rrp-full-advert"], BY_ID["hoti"]]
    layers = tshark(capture(tmp_path / "mip.pcap", datagrams), "-o", "haaro.also_mip:TRUE")
    assert all("_ws_malformed" in layer for layer in layers)
    assert "mip_mip_auth_spi" not in layers[0]["mip"]
    assert flat(layers[0]["haaro"], "haaro_haaro_")["auth_spi"] == ["256"]


# --- without tshark -------------------------------------------------------------------------------


def lua_table(name, pattern):
    body = re.search(rf"^local {name} = {{(.*?)}}$", SOURCE, re.M | re.S)[1]
    return dict(re.findall(pattern + r' = "([^"]*)"', body))


def test_its_words_are_those_of_haaro_decode():
    assert {int(k): v for k, v in lua_table("MESSAGES", r"\[(\d+)\]").items()} == words.MESSAGES
    assert lua_table("EXTENSIONS", r'\["([\d/]+)"\]') == {
        str(kind) if subtype is None else f"{kind}/{subtype}": name
        for (kind, subtype), name in words.EXTENSIONS.items()
    }
    codes = {
        str(code): ("foreign agent: " if known.name.startswith("fa_") else "") + known.meaning
        for code, known in REPLY_CODES.items()
    }
    assert lua_table("REPLY_CODES", r"\[(\d+)\]") == codes
    used = set(re.findall(r'"(\w+)"', SOURCE)) & set(words.REASONS)
    assert {"realm_index_unset", "auth_ext_length", "captured_short"} <= used


def test_install_puts_it_into_the_folder_and_says_where(tmp_path):
    done = CliRunner().invoke(app, ["install", "--dir", str(tmp_path / "plug" / "ins")])
    assert done.exit_code == 0
    assert f"installed: {tmp_path}/plug/ins/haaro.lua" in done.output
    assert (tmp_path / "plug" / "ins" / "haaro.lua").read_text() == SOURCE
    assert [each.name for each in (tmp_path / "plug" / "ins").iterdir()] == ["haaro.lua"]


def test_install_over_an_old_one_replaces_it(tmp_path):
    (tmp_path / "haaro.lua").write_text("old")
    assert CliRunner().invoke(app, ["install", "--dir", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "haaro.lua").read_text() == SOURCE


def test_install_where_it_cannot_be_written_exits_1_and_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["install", "--dir", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert "A fatal error occurred: " in done.output


@needs_tshark
def test_tshark_finds_it_where_install_puts_it_without_dir(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "WIRESHARK_RUN_FROM_BUILD_DIRECTORY"):
        environment.pop(name, None)
    done = CliRunner().invoke(app, ["install"], env={"HOME": str(tmp_path), "XDG_DATA_HOME": None})
    where = Path(re.search("installed: (.*)", done.output)[1])
    assert where.is_relative_to(tmp_path)
    path = capture(tmp_path / "one.pcap", [BY_ID["hoti"]])
    shown = subprocess.run(["tshark", "-r", str(path)], capture_output=True, text=True,
                           timeout=60, env=environment).stdout  # fmt: skip
    assert "HAARO 38 Home Test Init" in shown
