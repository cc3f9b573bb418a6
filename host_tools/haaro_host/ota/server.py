"""`haaro ota serve`: what the boxes ask whether there is a program for them, and fetch it from.

    GET /v1/box?site=..&board=..&version=..&slot=..&state=..&digest=..&attempt=..&why=..
        204, or 200 and one line: SHA256 OCTETS ATTEMPT
    GET /v1/bundle/SHA256      the bundle; Range: bytes=N- goes on there

A box is who asks from its site's home address, which the home agent's tunnel brings. Bundles are
signed, so nothing here has to be believed by a box; what a box says is written down, and stops a
roll-out.
"""

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from haaro_host.fleet import inventory
from haaro_host.fleet.files import FleetError, locked
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.ota import rollout
from haaro_host.ota.rollout import Box

_PATIENCE_S = 30.0
_LOOK_S = 5.0
_TEXT_LIMIT = 200
_STATES = ("running", "trial", "returned", "refused", "over")
_DIGEST = re.compile(r"[0-9a-f]{64}")
Say = Callable[[str], None]


class Desk:
    """What the server knows and decides; one request at a time."""

    def __init__(self, path: Path, any_source: bool, say: Say) -> None:
        self._path = path
        self._any_source = any_source
        self._say = say
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self.fleet = inventory.load(path)

    def _stamped(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
            return found.st_mtime_ns, found.st_size
        except OSError:
            return 0, 0

    def _fleet(self) -> Fleet:
        """Return the fleet file as it stands; the one before while somebody edits it."""
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self.fleet = inventory.load(self._path)
            except FleetError as error:
                self._say(f"{error}; the fleet file of before holds")
        return self.fleet

    def box_asks(self, words: dict[str, str], source: str) -> str | None:
        """Write down what a box says; return the line of an offer, None for nothing.

        Raises PermissionError for who is no box, ValueError for what is no question.
        """
        with self._lock, locked(self.fleet.directory):
            fleet = self._fleet()
            site = self._site(fleet, words.get("site", ""), source)
            now = int(time.time())
            boxes = rollout.load_boxes(fleet)
            box = boxes.setdefault(site.name, Box())
            self._take(site, box, words, now)
            rollouts = rollout.load(fleet)
            current = rollouts.get(box.board)
            offer = None
            if current is not None:
                self._judge(fleet, rollouts, boxes, now)
                if rollout.wants(current, site.name, box, now):
                    offer = f"{current.digest} {current.octets} {current.attempt}\n"
                    if (box.offered, box.offered_attempt) != (current.digest, current.attempt):
                        box.offered, box.offered_attempt = current.digest, current.attempt
                        box.offered_at = now
                        self._say(f"{site.name}: is offered {current.version}")
            rollout.save_boxes(fleet, boxes)
            return offer

    def look(self) -> None:
        """Stop what has lost boxes, also when nobody asks."""
        with self._lock, locked(self.fleet.directory):
            fleet = self._fleet()
            boxes = rollout.load_boxes(fleet)
            self._judge(fleet, rollout.load(fleet), boxes, int(time.time()))

    def bundle(self, digest: str) -> Path:
        """Return where a bundle is. Raises FileNotFoundError."""
        path = rollout.bundle_path(self.fleet, digest)
        if not _DIGEST.fullmatch(digest) or not path.is_file():
            raise FileNotFoundError(digest[:64])
        return path

    def _site(self, fleet: Fleet, name: str, source: str) -> Site:
        site = fleet.sites.get(name)
        if site is None or site.revoked or not (self._any_source or source == site.home_address):
            raise PermissionError(f"{source} is not {name[:32]!r}")
        return site

    def _take(self, site: Site, box: Box, words: dict[str, str], now: int) -> None:
        state, digest = words.get("state", ""), words.get("digest", "")
        if state not in _STATES or not (digest == "" or _DIGEST.fullmatch(digest)):
            raise ValueError("state or digest")
        before = (box.version, box.state)
        box.version = words.get("version", "")[:32]
        box.board = words.get("board", "")[:32]
        box.slot = words.get("slot", "")[:1]
        box.state, box.digest = state, digest
        box.attempt = int(words.get("attempt") or 0)
        box.why = words.get("why", "")[:_TEXT_LIMIT]
        box.seen = now
        if before != (box.version, box.state):
            why = f" ({box.why})" if box.why else ""
            self._say(f"{site.name}: {box.version} in slot {box.slot}, {box.state}{why}")

    def _judge(
        self, fleet: Fleet, rollouts: dict[str, rollout.Rollout], boxes: dict[str, Box], now: int
    ) -> None:
        for each in rollouts.values():
            if rollout.judge(each, boxes, fleet, now):
                self._say(f"roll-out of {each.version} to {each.board} stopped: {each.reason}")
                rollout.save(fleet, rollouts)


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    desk: Desk

    def do_GET(self) -> None:
        """Answer one request."""
        where = urlsplit(self.path)
        try:
            if where.path == "/v1/box":
                words = {key: values[-1] for key, values in parse_qs(where.query).items()}
                offer = self.desk.box_asks(words, self.client_address[0])
                self._answer(200 if offer else 204, (offer or "").encode())
            elif where.path.startswith("/v1/bundle/"):
                self._bundle(self.desk.bundle(where.path.removeprefix("/v1/bundle/")))
            else:
                self._answer(404, b"")
        except PermissionError:
            self._answer(403, b"")
        except FileNotFoundError:
            self._answer(404, b"")
        except ValueError:
            self._answer(400, b"")
        except FleetError:
            # Another command has the fleet, or a state file is bad: the box asks again.
            self._answer(503, b"")

    def _bundle(self, path: Path) -> None:
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d{1,12})-", self.headers.get("Range", ""))
        at = int(found[1]) if found else 0
        if at >= len(data):
            self._answer(416, b"")
        elif at:
            self._answer(206, data[at:], f"bytes {at}-{len(data) - 1}/{len(data)}")
        else:
            self._answer(200, data)

    def _answer(self, status: int, body: bytes, content_range: str = "") -> None:
        self.send_response_only(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A box that went away is no event."""


def serve(path: Path, address: str, port: int, any_source: bool, say: Say) -> "Running":
    """Return a server that runs. Raises FleetError."""
    desk = Desk(path, any_source, say)
    handler = type("Handler", (_Handler,), {"desk": desk})
    try:
        server = _Server((address, port), handler)
    except OSError as error:
        raise FleetError(f"{address}:{port}: {error.strerror}; choose another --listen") from None
    return Running(server, desk)


class Running:
    """A server in threads of its own until `close`."""

    def __init__(self, server: ThreadingHTTPServer, desk: Desk) -> None:
        self._server = server
        self._desk = desk
        self._end = threading.Event()
        self.port = int(server.server_address[1])
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self._look, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Go on until `close`, or an interrupt."""
        self._end.wait()

    def close(self) -> None:
        """End."""
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._end.wait(_LOOK_S):
            try:
                self._desk.look()
            except FleetError:
                continue
