"""`haaro decode`: verdicts, places, keys; no datagram makes it fail or print raw octets."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from haaro.wire import auth, encapsulation, extensions, ipv4
from haaro.wire import registration as reg
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.decode import inputs, words
from haaro_host.decode.cli import decode
from haaro_host.decode.keys import Keys
from haaro_host.decode.packets import Datagram
from haaro_host.decode.report import MAX_DEPTH, SCHEMA, report
from haaro_host.decode.text import lines
from tests.meta.repository import FIRMWARE, python_files

DOCUMENT = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())
VECTORS = [vector for vector in DOCUMENT["vectors"] if vector["kind"] == "datagram"]
BY_ID = {vector["id"]: bytes.fromhex(vector["hex"]) for vector in VECTORS}
MOBILE_HOME = f"{DOCUMENT['keys']['spi']}:hmac-md5:{DOCUMENT['keys']['mobile_home']}"
KRMS = [DOCUMENT["keys"]["krm"], DOCUMENT["keys"]["krm_dereg"]]
KEY_OPTIONS = ["--mobile-home", MOBILE_HOME, "--krm", KRMS[0], "--krm", KRMS[1]]
KEYS = Keys.from_options([MOBILE_HOME], KRMS)
HOA, HA, COA = (ipv4.address(text) for text in ("192.0.2.129", "192.0.2.1", "198.51.100.10"))
VERDICTS = {"ok", "discard", "auth_fail", "bad_ext"}

APP = typer.Typer()
APP.command()(decode)


def run(*arguments, stdin=b""):
    return CliRunner().invoke(APP, [str(each) for each in arguments], input=stdin)


def request(*appends, kind=1):
    """Return a signed Request (1) or Reply (3) with what the functions append to it."""
    if kind == 1:
        message = reg.build_request(0x22, 300, HOA, HA, COA, bytes(8))
    else:
        message = reg.build_reply(0, 300, HOA, HA, bytes(8))
    for append in appends:
        append(message)
    auth.append_mobile_home(
        message, 256, auth.HMAC_MD5, bytes.fromhex(DOCUMENT["keys"]["mobile_home"])
    )
    return bytes(message)


def judged(data, keys=KEYS):
    return report(Datagram.whole(data), keys)


# --- the vectors ----------------------------------------------------------------------------------


def test_each_vector_decodes_to_what_the_vector_says():
    """The command itself, one process: one object a line, in the order of the lines."""
    command = [Path(sys.executable).parent / "haaro", "decode", "--json", *KEY_OPTIONS]
    text = "".join(vector["hex"] + "\n" for vector in VECTORS)
    done = subprocess.run(
        [*command, "--hex", "-"], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(objects) == len(VECTORS)
    for vector, found in zip(VECTORS, objects, strict=True):
        expect = dict(vector["expect"])
        if "exts" in expect:
            expect["extensions"] = expect.pop("exts")
        assert {key: found[key] for key in expect} == expect, vector["id"]
        assert found["reason"] == expect.get("reason")


def test_the_schema_is_one_set_of_keys_whatever_the_datagram():
    shapes = {tuple(judged(data).as_json()) for data in [*BY_ID.values(), b"\xff" * 9]}
    assert len(shapes) == 1
    found = judged(BY_ID["rrq-min"]).as_json()
    assert found["schema"] == SCHEMA == "haaro.decode/1"
    assert list(found) == [
        "schema", "verdict", "reason", "offset", "type", "fields", "extensions", "unauthenticated",
        "ignored", "bad", "authentication", "notes", "octets", "source", "inner",
    ]  # fmt: skip
    assert list(found["authentication"]) == list(judged(BY_ID["rrq-no-auth"]).authentication)


def test_all_good_exits_0_and_any_refusal_exits_1():
    good = BY_ID["rrq-min"].hex().encode()
    assert run(*KEY_OPTIONS, "--hex", "-", stdin=good + b"\n" + good).exit_code == 0
    bad = BY_ID["rrq-bad-mac"].hex().encode()
    assert run(*KEY_OPTIONS, "--hex", "-", stdin=good + b"\n" + bad).exit_code == 1
    assert run("--hex", BY_ID["mobnet-plen-33"].hex()).exit_code == 1


def test_text_names_fields_in_the_words_of_the_rfc():
    out = run(*KEY_OPTIONS, "--hex", BY_ID["rrp-full-advert"].hex()).output
    for wanted in (
        "Registration Reply (3), 152 octets: ok",
        "Code                    0 (accepted: registration accepted (RFC 5944))",
        "Home Agent              192.0.2.1",
        "Route Optimization Prefix Advertisement (50/1) at octet 52",
        "Mobile Router HoA       10.99.0.3 (outbound connections only)",
        "192.0.2.192/27 realm bar.example.com.org",
        "N: NAT was detected     yes",
    ):
        assert wanted in out


# --- where it stopped -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "empty", 0),
        (b"\x63rest", "unknown_type", 0),
        (BY_ID["rrq-min"][:23], "message_truncated", 23),
        (BY_ID["rrq-min"][:24] + b"\0\0\0\x90", "ext_overrun", 27),
        (BY_ID["rrq-min"][:24] + b"\x94\x09", "ext_overrun", 24),
        (BY_ID["rrq-min"] + b"\x32\x01\x00", "ext_overrun", 46),
        (BY_ID["rrq-min"] + b"\0\x05\x00", "unknown_nonskippable", 47),
        (BY_ID["rrq-min"][:24] + b"\xc8\0" * 129, "too_many_extensions", 24 + 256),
        (BY_ID["rrq-min"][:24] + b"\xc8\0\x20\x03abc\x94\xff", "auth_ext_length", 26),
        (BY_ID["hoti"] + b"\x70\0", "unknown_nonskippable", 10),
    ],
)
def test_a_discarded_datagram_names_the_octet_where_parsing_stopped(data, reason, offset):
    found = judged(data)
    assert (found.verdict, found.reason, found.offset) == ("discard", reason, offset)


def test_what_stands_before_the_stop_is_shown():
    found = judged(BY_ID["ext-unknown-nonskippable"])
    assert found.fields["coa"] == "198.51.100.7"
    found = judged(BY_ID["rrq-nemo-nat-haaro"] + b"\x05\x00")
    assert (found.reason, len(found.extensions)) == ("unknown_nonskippable", 5)
    assert found.authentication["spi"] == 256


def test_each_extension_has_its_own_place_also_beside_bad_and_skipped_ones_of_its_kind():
    def network(message):
        extensions.append_mobile_network_request(message, b"\x0a\1\0\0", 16)

    found = judged(
        request(
            lambda m: m.extend(bytes([0, 148, 6, 0, 33, 10, 0, 0, 0])),  # 25: over 32 bits
            network,  # 33
            lambda m: m.extend(bytes([200, 1, 7])),  # 41: skipped
            lambda m: m.extend(bytes([144, 6, 0, 0, 0, 4, 0, 9])),  # 44: Reserved 3 is set: skipped
            lambda m: extensions.append_udp_tunnel_request(m, True),  # 52
            lambda m: m.extend(bytes([144, 6, 0, 0, 0, 4, 0, 9])),  # 60: the second
            lambda m: m.extend(bytes([153, 6, 1, 0xC0, 1, 2, 3, 4])),  # 68: HoA without S
            lambda m: extensions.append_route_optimization_capability(m, True, True),  # 76
            network,  # 80
        )
    )
    assert found.layout == [
        (25, "bad", 0), (33, "extensions", 0), (41, "ignored", 0), (44, "ignored", 1),
        (52, "extensions", 1), (60, "bad", 1), (68, "bad", 2), (76, "extensions", 2),
        (80, "extensions", 3), (88, "authentication", 0),
    ]  # fmt: skip
    assert [(each["reason"], each["offset"]) for each in found.bad] == [
        ("mobnet_plen", 25),
        ("duplicate_extension", 60),
        ("ro_cap_hoa_iff_s", 68),
    ]
    assert (found.verdict, found.reason, found.offset) == ("bad_ext", "mobnet_plen", 25)
    assert found.ignored == [[200, None], [144, 0]]


def test_extensions_behind_a_return_routability_message_are_listed_as_unprotected():
    found = judged(BY_ID["hoti"] + bytes([0, 200, 0, 131, 1, 65]))
    assert (found.verdict, found.extensions) == ("ok", [])
    assert found.unauthenticated == [[200, None], [131, None]]
    assert [place for place, _, _ in found.layout] == [11, 13]


def test_every_reason_of_the_wire_layer_has_a_sentence():
    raised = set()
    for path, _ in python_files(FIRMWARE / "haaro" / "wire"):
        # Those of packets, not of messages: message.parse never calls these.
        if path.name not in ("ipv4.py", "encapsulation.py"):
            source = path.read_text()
            raised |= set(re.findall(r'WireError\(\s*"(\w+)"', source))
            raised |= set(re.findall(r'_need\([^"]*"(\w+)"\)', source))
    assert len(raised) > 20
    assert sorted(raised - set(words.REASONS)) == []


# --- authentication -------------------------------------------------------------------------------


def test_without_a_key_authentication_is_not_checked_and_spoils_nothing():
    found = judged(BY_ID["rrq-bad-mac"], Keys())
    assert (found.verdict, found.authentication["result"]) == ("ok", "not_checked")
    assert judged(BY_ID["rrq-no-auth"], Keys()).reason == "no_auth_ext"
    assert judged(BY_ID["mobnet-plen-33"], Keys()).verdict == "bad_ext"


def test_a_key_for_another_spi_or_another_extension_does_not_judge():
    other = Keys.from_options([f"257:hmac-md5:{'11' * 16}"])
    assert judged(BY_ID["rrq-bad-mac"], other).authentication["result"] == "not_checked"
    only_krm = Keys.from_options(krm=KRMS)
    assert judged(BY_ID["rrq-bad-mac"], only_krm).verdict == "ok"
    assert judged(BY_ID["mc-contiguous-coverage"], only_krm).reason == "bad_authenticator"


def test_the_right_key_is_found_among_several_of_one_spi_and_named_by_fingerprint():
    keys = Keys.from_options([f"256:hmac-sha256:{'11' * 16}", MOBILE_HOME])
    found = judged(BY_ID["rrq-min"], keys).authentication
    assert (found["result"], found["algorithm"]) == ("right", "hmac-md5")
    assert re.fullmatch("[0-9a-f]{8}", found["key"])
    assert judged(BY_ID["mc-dereg"]).authentication["result"] == "right"


def test_several_authenticators_are_refused_without_any_key():
    data = BY_ID["rrq-min"] + BY_ID["rrq-min"][24:]
    found = judged(data, Keys())
    assert (found.verdict, found.reason, found.offset) == (
        "auth_fail",
        "several_authenticators",
        46,
    )
    assert found.authentication["result"] == "several"


def test_a_reply_about_expired_nonces_is_explained_as_a_hint():
    found = judged(bytes(reg.build_reply(203, 0, HOA, HA, bytes(8))))
    assert found.reason == "no_auth_ext"
    assert found.notes == [words.NONCE_HINT]


SECRET = "5ec2e75ec2e75ec2e75ec2e75ec2e75e"


@pytest.mark.parametrize(
    "options",
    [
        ["--mobile-home", f"256:hmac-md5:{SECRET}"],
        ["--mobile-home", SECRET],
        ["--mobile-home", f"256:{SECRET}"],
        ["--mobile-home", f"{SECRET}:hmac-md5:00"],
        ["--mobile-home", f"256:{SECRET}:00"],
        ["--mobile-home", f"256:hmac-md5:{SECRET}x"],
        ["--mobile-home", f"256:hmac-md5:{SECRET}:1"],
        ["--krm", SECRET],
        ["--krm", SECRET + "0"],
        ["--krm", SECRET + "zz"],
        ["--secrets", "json"],
        ["--secrets", "toml"],
        ["--secrets", "broken"],
        ["--secrets", "odd"],
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_key_is_ever_printed(options, form, tmp_path):
    (tmp_path / "json").write_text(
        json.dumps({"mobile_home": [{"spi": 256, "algorithm": "hmac-md5", "key": SECRET}],
                    "peers": [{"home_address": "192.0.2.130", "krm": [SECRET]}]})
    )  # fmt: skip
    (tmp_path / "toml").write_text(f'[[router]]\nname = "A"\nspi = 256\nkey = "{SECRET}"\n')
    (tmp_path / "broken").write_text(f'{{"mobile_home": [{{"key": "{SECRET}"')
    (tmp_path / "odd").write_text(json.dumps({"peers": [{"krm": [SECRET + "0"]}]}))
    if options[0] == "--secrets":
        options = ["--secrets", tmp_path / options[1]]
    data = BY_ID["rrq-min"].hex() + "\n" + BY_ID["mc-rrq"].hex()
    flags = ["--json"] if form == "json" else []
    done = run(*options, *flags, "--hex", "-", stdin=data.encode())
    assert done.exit_code in (1, 2)
    assert SECRET[:12] not in done.output
    assert SECRET not in repr(Keys.from_options([f"256:hmac-md5:{SECRET}"], [SECRET]))


@pytest.mark.parametrize("name", ["router.json", "ha.toml"])
def test_keys_are_read_from_the_secrets_files_of_router_and_home_agent(name, tmp_path):
    key = DOCUMENT["keys"]["mobile_home"]
    if name == "router.json":
        row = {"spi": 256, "algorithm": "hmac-md5", "key": key}
        peers = [{"home_address": "192.0.2.130", "krm": KRMS}]
        text = json.dumps({"version": 1, "mobile_home": [row], "peers": peers})
    else:
        text = f'[[router]]\nname = "A"\nspi = 256\nkey = "{key}"\n'
    (tmp_path / name).write_text(text)
    keys = Keys.from_options(secrets=[tmp_path / name])
    assert judged(BY_ID["rrq-min"], keys).authentication["result"] == "right"
    result = judged(BY_ID["mc-rrq"], keys).authentication["result"]
    assert result == ("right" if name == "router.json" else "not_checked")


# --- tunnel data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("next_header", [4, 47, 55])
def test_a_message_inside_a_tunnel_is_decoded_too(next_header):
    inner = ipv4.build_udp(HOA, COA, 5000, 434, BY_ID["hoti"])
    ends = ipv4.address("198.51.100.1"), HA
    outer = {
        4: lambda: inner,
        47: lambda: encapsulation.encapsulate_gre(*ends, inner, with_checksum=True)[20:],
        55: lambda: encapsulation.encapsulate_minimal(*ends, inner)[20:],
    }[next_header]()
    source = {"src": ipv4.text(ends[0]), "sport": 434, "dst": ipv4.text(ends[1]), "dport": 434}
    found = report(Datagram.whole(bytes([4, next_header, 0, 0]) + outer, source), KEYS)
    assert found.verdict == "ok"
    assert found.inner.fields == {"cookie": "0102030405060708"}
    assert found.inner.datagram.source["src"] == "192.0.2.129"
    assert found.as_json()["inner"]["type"] == 24
    assert "192.0.2.129:5000 > 198.51.100.10:434, UDP, 38 octets" in "\n".join(lines(found))


def test_tunnels_within_tunnels_are_followed_a_few_levels_only():
    data = BY_ID["hoti"]
    for _ in range(12):
        data = TUNNEL_HEADER + ipv4.build_udp(HOA, COA, 434, 434, data)
    found, levels = judged(data), 0
    while found is not None:
        found, levels = found.inner, levels + 1
    assert levels == MAX_DEPTH


def test_a_refused_message_inside_a_tunnel_is_a_refusal():
    inner = ipv4.build_udp(HOA, COA, 434, 434, BY_ID["rrq-bad-mac"])
    done = run(*KEY_OPTIONS, "--hex", (TUNNEL_HEADER + inner).hex())
    assert done.exit_code == 1
    assert "bad_authenticator" in done.output


# --- whatever it is given -------------------------------------------------------------------------


def test_octets_that_a_peer_chose_are_escaped():
    def nai(message):
        extensions.append_nai(message, b"a\x1b[2J\\\x7f\xff")

    found = judged(request(nai))
    assert "NAI                     a\\x1b[2J\\x5c\\x7f\\xff" in "\n".join(lines(found))
    shown = run("--json", *KEY_OPTIONS, "--hex", request(nai).hex()).output
    assert all(" " <= c <= "~" for c in shown.rstrip("\n"))
    assert json.loads(shown)["extensions"][0]["nai"] == "a\x1b[2J\\\x7f\xff"

    def advertisement(message):
        data = b"\x40" + HOA + b"\x08\x0a\x03\x1b]0\x00"
        extensions.append_prefix_advertisement(message, data)

    found = judged(request(advertisement, kind=3))
    assert found.verdict == "ok"
    assert "10.0.0.0/8 realm \\x1b]0" in "\n".join(lines(found))


def test_a_file_name_with_control_octets_is_escaped_in_complaints(tmp_path):
    done = run(tmp_path / "no\x1b[31m.pcap")
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "no\\x1b[31m.pcap: No such file" in done.output


messages = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda head, rest: head + rest, st.sampled_from(sorted(BY_ID.values())), st.binary()),
    st.builds(
        lambda data, at, value: data[: at % (len(data) + 1)] + value + data[at % (len(data) + 1) :],
        st.sampled_from(sorted(BY_ID.values())),
        st.integers(0, 200),
        st.binary(max_size=3),
    ),
    st.builds(
        lambda data, at, bits: bytes(
            octet ^ bits if i == at % max(len(data), 1) else octet for i, octet in enumerate(data)
        ),
        st.sampled_from(sorted(BY_ID.values())),
        st.integers(0, 200),
        st.integers(1, 255),
    ),
)


@given(messages)
@example(b"\x03" + bytes(19) + b"\x32\x01\x00\x00" + BY_ID["rrp-denied-133"][20:])
def test_no_datagram_makes_it_fail_or_print_raw_octets(data):
    for wrapped in (data, TUNNEL_HEADER + ipv4.build_udp(HOA, COA, 434, 434, data)):
        found = judged(wrapped)
        assert found.verdict in VERDICTS
        assert (found.verdict == "ok") == (found.reason is None) == (found.offset is None)
        if found.offset is not None:
            assert 0 <= found.offset <= len(wrapped)
        text = "\n".join(lines(found))
        assert all(" " <= c <= "~" for c in text.replace("\n", ""))
        json.dumps(found.as_json())


@pytest.mark.parametrize(
    ("text", "reason", "offset"),
    [
        (b"zz", "not_hex", 0),
        (b"01 02 0g", "not_hex", 7),
        (b"01:02:3", "odd_hex", 7),
        (b"\xff\xfe", "not_hex", 0),
    ],
)
def test_text_that_is_not_hex_names_the_character(text, reason, offset):
    done = run("--json", "--hex", "-", stdin=text + b"\n" + BY_ID["hoti"].hex().encode())
    first, second = map(json.loads, done.output.splitlines())
    assert (first["verdict"], first["reason"], first["offset"]) == ("discard", reason, offset)
    assert (second["verdict"], second["source"]) == ("ok", {"line": 2})
    assert f"{reason} at character {offset}" in run("--hex", "-", stdin=text).output
    assert done.exit_code == 1


def test_hex_may_have_spaces_and_colons_and_stand_in_a_file(tmp_path):
    text = BY_ID["hoti"].hex(":") + "\r\n" + BY_ID["cot"].hex(" ") + "\n"
    (tmp_path / "some.hex").write_text(text)
    done = run("--json", tmp_path / "some.hex")
    assert [json.loads(line)["type"] for line in done.output.splitlines()] == [24, 27]
    assert done.exit_code == 0


def test_a_file_that_is_neither_is_one_datagram(tmp_path):
    (tmp_path / "raw").write_bytes(BY_ID["rrq-min"])
    assert run(*KEY_OPTIONS, tmp_path / "raw").exit_code == 0
    assert run(*KEY_OPTIONS, "-", stdin=BY_ID["rrq-min"]).exit_code == 0
    (tmp_path / "text").write_text("This is not a datagram.")
    done = run(tmp_path / "text")
    assert "unknown_type at octet 0: 54 68 69 73" in done.output
    assert done.exit_code == 1
    (tmp_path / "empty").write_bytes(b"")
    assert "empty at octet 0" in run(tmp_path / "empty").output


class Endless(io.RawIOBase):
    """A stream of `pattern` that counts what is taken and ends after `most` octets."""

    def __init__(self, pattern, most):
        self.pattern, self.most, self.taken = pattern, most, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), self.most - self.taken)
        buffer[:size] = (self.pattern * (size // len(self.pattern) + 1))[:size]
        self.taken += size
        return size


@pytest.mark.parametrize("pattern", [b"00", b" ", b"\x01"])
def test_input_without_end_is_cut_and_takes_bounded_memory(pattern):
    import tracemalloc

    tracemalloc.start()
    try:
        found = list(inputs.FileInput(Endless(pattern, 20_000_000), "x").datagrams())
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert [each.fault for each in found] == ["too_long"]


def test_the_largest_advertisement_is_shown_in_bounded_time():
    """Each network of two octets expands to a realm of 253: 64 KB become 8 MB, not more."""
    label = b"\x01a" * 127
    data = b"\x40" + HOA + b"\x00" + label + b"\x00" + b"\x00\xff\x00" * 20000
    assert len(data) > 60000
    # The run of 127 labels fills slots 0..126 and its suffixes the rest; slot 127 is the longest.
    found = judged(request(lambda m: extensions.append_prefix_advertisement(m, data), kind=3))
    assert found.verdict == "ok"
    routers = found.extensions[0]["routers"]
    assert len(routers[0]["prefixes"]) == 20001
    assert len(routers[0]["prefixes"][-1][2]) == 253
    assert sum(map(len, lines(found))) < 10_000_000


# --- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--hex", "00", "x.pcap"],
        ["--hex", "00", "--interface", "lo"],
        ["--namespace", "x", "--hex", "00"],
        ["--interface", "no-such-if"],
        ["--interface", "lo", "--namespace", "no-such-namespace"],
        ["--hex", "00", "--krm", ""],
    ],
)
def test_bad_usage_exits_2_and_says_why(arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "A fatal error occurred: " in done.output


def test_the_count_ends_it(tmp_path):
    text = (BY_ID["hoti"].hex() + "\n").encode() * 5
    assert len(run("--json", "--count", "2", "--hex", "-", stdin=text).output.splitlines()) == 2
    (tmp_path / "five").write_bytes(text)
    done = run("--json", "--count", "5", *[tmp_path / "five"] * 3)
    assert len(done.output.splitlines()) == 5


def test_a_reader_that_leaves_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [Path(sys.executable).parent / "haaro", "decode", "--hex", "18" + "00" * 9]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert done.stderr == b""
