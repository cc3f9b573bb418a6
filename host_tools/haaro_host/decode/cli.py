"""`haaro decode`: read Mobile IP datagrams and say what they are, as text or JSON."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from haaro.wire.message import TUNNEL_DATA
from haaro_host.decode import inputs, live
from haaro_host.decode.keys import KeyFormatError, Keys
from haaro_host.decode.packets import Datagram
from haaro_host.decode.report import Report, report
from haaro_host.decode.text import escaped, lines

EXIT_OK, EXIT_REFUSED, EXIT_USAGE = 0, 1, 2


def decode(
    files: list[str] = typer.Argument(
        None, metavar="[FILE]...", help="pcap, pcapng, lines of hex or one raw datagram; - is stdin"
    ),
    hex_text: str | None = typer.Option(
        None, "--hex", metavar="HEX", help="one datagram; - reads one a line from standard input"
    ),
    interface: str | None = typer.Option(None, help="listen on this interface until Ctrl-C"),
    namespace: str | None = typer.Option(None, help="that is in this network namespace"),
    count: int | None = typer.Option(None, min=1, help="end after so many datagrams"),
    seconds: float | None = typer.Option(None, min=0, help="end listening after so long"),
    mobile_home: list[str] = typer.Option(
        [], metavar="SPI:ALGORITHM:HEX", help="a key of mobile router and home agent; repeatable"
    ),
    krm: list[str] = typer.Option(
        [], metavar="HEX", help="a KRm of mobile router and correspondent router; repeatable"
    ),
    secrets: list[Path] = typer.Option(
        [], help="secrets file of a router or home agent, to keep keys off the command line"
    ),
    signalling: bool = typer.Option(
        False, "--signalling", help="leave out tunnel data that carries no Mobile IP message"
    ),
    as_json: bool = typer.Option(False, "--json", help="one JSON object a line (haaro.decode/1)"),
) -> None:
    """Decode Mobile IP datagrams (UDP port 434): fields, authentication, reasons of refusal.

    Exit status: 0 all would be accepted, 1 something would be refused or could not be read,
    2 bad usage.
    """
    if bool(files) + (hex_text is not None) + (interface is not None) != 1:
        _fail("give FILE..., or --hex HEX, or --interface NAME; - is standard input")
    if interface is None and (namespace is not None or seconds is not None):
        _fail("--namespace and --seconds go with --interface")
    try:
        keys = Keys.from_options(mobile_home, krm, secrets)
    except KeyFormatError as error:
        _fail(str(error))
    session = _Session(keys, as_json, signalling, count)
    if interface is not None:
        session.listen(interface, namespace, seconds)
    elif hex_text is not None:
        session.hex(hex_text)
    else:
        session.read(files)
    raise typer.Exit(EXIT_REFUSED if session.refused else EXIT_OK)


class _Session:
    """One run: prints each datagram as it comes and remembers whether all were good."""

    def __init__(self, keys: Keys, as_json: bool, signalling: bool, count: int | None) -> None:
        self.refused = False
        self._keys = keys
        self._as_json = as_json
        self._signalling = signalling
        self._left = count

    def hex(self, text: str) -> None:
        """One datagram given as an argument, or one a line on standard input."""
        if text == "-":
            self._show(inputs.hex_lines(inputs.standard_input(), {}), flush=True)
        else:
            self._show(iter([inputs.from_hex(text.encode("utf-8", "surrogateescape"))]))

    def read(self, names: list[str]) -> None:
        """Files in order, and for captures what is wrong with them as a whole."""
        for name in names:
            if self._left == 0:
                return
            with contextlib.ExitStack() as stack:
                try:
                    file = (
                        inputs.standard_input()
                        if name == "-"
                        else stack.enter_context(open(name, "rb"))
                    )
                    source = inputs.FileInput(file, name)
                    shown = self._show(source.datagrams(), flush=name == "-")
                except BrokenPipeError:
                    raise  # the reader of our output has seen enough; typer ends it quietly
                except OSError as error:
                    self._complain(name, error.strerror or type(error).__name__)
                    continue
            for problem in source.problems:
                self._complain(name, problem)
            if source.captured and not shown:
                _say(f"{escaped(name)}: {source.frames} frames, none of them on UDP port 434")

    def listen(self, interface: str, namespace: str | None, seconds: float | None) -> None:
        """A live interface, until Ctrl-C, `seconds` or the count."""
        try:
            listener = live.Listener(interface, namespace)
            _say(f"listening on {escaped(interface)}")
            with contextlib.suppress(KeyboardInterrupt):
                self._show(inputs.live(listener.packets(seconds), interface), flush=True)
        except live.LiveError as error:
            _fail(str(error))
        dropped = listener.dropped()
        if dropped:
            self._complain(interface, f"{dropped} packets came too fast and were not seen")

    def _show(self, datagrams: Iterator[Datagram], flush: bool = False) -> int:
        shown = 0
        for datagram in datagrams:
            found = report(datagram, self._keys)
            if self._signalling and _only_traffic(found):
                continue
            self.refused |= not found.accepted
            shown += 1
            self._print(found, flush)
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    break
        return shown

    def _print(self, found: Report, flush: bool) -> None:
        # JSON too has all but printable ASCII escaped.
        text = json.dumps(found.as_json()) if self._as_json else "\n".join(lines(found))
        print(text, flush=flush)

    def _complain(self, name: str, problem: str) -> None:
        self.refused = True
        _say(f"{escaped(name)}: {problem}")


def _only_traffic(found: Report) -> bool:
    return found.type == TUNNEL_DATA and found.verdict == "ok" and found.inner is None


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"haaro decode: {text}", file=sys.stderr, flush=True)


def _fail(text: str) -> None:
    typer.echo(f"A fatal error occurred: {escaped(text)}", err=True)
    raise typer.Exit(EXIT_USAGE)
