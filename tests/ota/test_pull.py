"""A box asks the real server over loopback: fetched, resumed, refused, reported, in time."""

import errno
import hashlib
import select
import socket
import sys
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from haaro.ota import updater as updaters
from haaro.ota.part import Incoming
from haaro.ota.updater import ANOTHER, Updater, place
from haaro_host.fleet import inventory
from haaro_host.ota import rollout, server
from tests.fleet.conftest import Shop, quick, shop  # noqa: F401 (fixtures)
from tests.ota.conftest import PUBLIC, bundle, program

_PATIENCE_TURNS = 3000


class Loop:
    """What an Updater needs of the router's loop, with a clock that is set."""

    def __init__(self, box, site="office-a", slot="a", **options):
        self.ms = 0
        self.clock = SimpleNamespace(now=lambda: self.ms)
        self.poll = select.poll()
        self.sockets = {}
        self._register, self.poll = self.poll, self
        self.settings = SimpleNamespace(name=site)
        self.registered = True
        self.left = None
        self.lines = []
        self.options = {"url": "", "interval_s": 60, "rate_kbit": 100000, "keys": [PUBLIC]}
        self.options.update(options)
        self.slots = box.slots(slot)
        self.updater = Updater(self, self.slots, self.options, "", lambda n: bytes(n))

    # poll's two doors; CPython's deals in file numbers.
    def register(self, sock, events):
        self.sockets[sock.fileno()] = sock
        self._register.register(sock, events)

    def unregister(self, sock):
        del self.sockets[sock.fileno()]
        self._register.unregister(sock)

    def log(self, level, line):
        self.lines.append(line)

    def leave(self, status):
        self.left = status

    def turn(self):
        """One turn: what is ready, or a second passes."""
        self.updater.tick(self.ms)
        ready = self._register.poll(0 if self.updater.busy else 20)
        for number, _ in ready:
            if number in self.sockets:
                self.updater.handle(self.sockets[number], self.ms)
        if not ready and not self.updater.busy:
            self.ms += 1000

    def until(self, condition):
        for _ in range(_PATIENCE_TURNS):
            if condition():
                return
            self.turn()
        raise AssertionError((self.lines, self.updater.status()))

    def question(self):
        """Let it ask now, and wait until it is done with the answer."""
        self.updater._ask_at = self.ms
        self.turn()
        self.until(lambda: self.updater._work is None)


@pytest.fixture
def desk(shop):  # noqa: F811
    """The server of a fleet of three sites, at a port of loopback."""
    made = server.serve(shop.file, "127.0.0.1", 0, True, shop.printed.append)
    yield SimpleNamespace(
        shop=shop, fleet=inventory.load(shop.file), url=f"http://127.0.0.1:{made.port}"
    )
    made.close()


def offer(desk, data, percent=100, attempt=1, **more):
    """What `haaro ota roll-out start` leaves for the server."""
    digest = hashlib.sha256(data).hexdigest()
    path = rollout.bundle_path(desk.fleet, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    version = more.pop("version", "0.2.0-r1")
    made = rollout.Rollout("UNIX", version, digest, len(data), percent, attempt=attempt, **more)
    rollout.save(desk.fleet, {"UNIX": made})
    return digest


def said(desk, site="office-a"):
    return rollout.load_boxes(desk.fleet)[site]


def test_a_box_fetches_what_is_offered_and_starts_it(desk, box):
    loop = Loop(box, url=desk.url)
    digest = offer(desk, bundle(program("new")))
    loop.question()
    assert loop.left == ANOTHER
    assert box.version("b") == "0.2.0-r1" and box.boot() == ("b", True)
    assert (said(desk).version, said(desk).offered) == ("0.1.0-r1", digest)
    trial = Loop(box, slot="b", url=desk.url)
    for _ in range(12):
        trial.turn()
    assert box.boot() == ("b", False), "kept after ten seconds"
    trial.question()
    assert (said(desk).version, said(desk).state, said(desk).slot) == ("0.2.0-r1", "running", "b")
    assert trial.left is None


def test_a_box_in_service_writes_nothing_however_often_it_asks(desk, box):
    """P6: nothing on offer, or for others only."""
    loop = Loop(box, url=desk.url)

    def files():
        return {path: path.stat().st_mtime_ns for path in box.folder.rglob("*")}

    before = files()
    for _ in range(3):
        loop.question()
    offer(desk, bundle(program("new")), percent=0, sites=["office-b"])
    loop.question()
    assert files() == before
    assert loop.left is None and loop.lines == []


def test_a_transfer_that_broke_goes_on_where_it_ended(desk, box):
    data = bundle(program("new"), pack="stored")
    digest = offer(desk, data)
    half = box.folder / "slots" / f"{digest[:16]}.part"
    half.write_bytes(data[: len(data) // 2])
    (box.folder / "slots" / "0123456789abcdef.part").write_bytes(b"another bundle")
    loop = Loop(box, url=desk.url)
    ranges, waited = [], set()
    send = socket.socket.send

    def watched(sock, octets):
        if sock not in waited:
            # The connection is not there at once, as over any network.
            waited.add(sock)
            raise BlockingIOError(errno.EAGAIN, "not yet")
        ranges.append(octets)
        return send(sock, octets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "send", watched)
        loop.question()
    assert f"Range: bytes={len(data) // 2}-\r\n".encode() in b"".join(ranges)
    assert box.version("b") == "0.2.0-r1"
    assert not list(box.folder.rglob("*.part"))
    assert loop.lines == ["update: another program is started"]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut each time"])
def test_a_server_without_ranges_is_asked_for_all_of_it_once(box, whole):
    """As many a plain file server: 200 whatever was asked for."""
    data = bundle(program("new"), pack="stored")
    digest = hashlib.sha256(data).hexdigest()
    half = box.folder / "slots" / f"{digest[:16]}.part"
    half.write_bytes(data[: len(data) // 2])
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for body in (f"{digest} {len(data)} 1\n".encode(), *[data if whole else data[:-9]] * 2):
                link, _ = listener.accept()
                with link:
                    asked.append(link.recv(4096))
                    link.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        threading.Thread(target=serve, daemon=True).start()
        loop = Loop(box, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        loop.question()
    assert f"Range: bytes={len(data) // 2}-".encode() in asked[1]
    if whole:
        assert (loop.left, box.version("b")) == (ANOTHER, "0.2.0-r1")
    else:
        assert loop.updater.status()["problem"] == "the server cannot go on where it ended"
        assert half.read_bytes() == data[:-9], "what is there is kept"


def test_what_nobody_may_run_is_not_fetched_to_its_end(desk, box):
    """Its head is judged as soon as it is there."""
    files = {f"haaro/m{i}.py": hashlib.sha512(bytes([i])).digest() * 400 for i in range(20)}
    data = bundle(files, version="0.0.1-r1", pack="stored")
    offer(desk, data, version="0.0.1-r1")
    loop = Loop(box, url=desk.url, rate_kbit=64)
    loop.question()
    assert "0.0.1-r1 is not newer" in loop.updater.status()["problem"]
    assert loop.ms < 20000, "a tenth of what 8000 octets a second would have taken"
    assert not list(box.folder.rglob("*.part"))
    loop.question()
    assert (said(desk).state, said(desk).why[:21]) == ("refused", "0.0.1-r1 is not newer")


def test_what_was_refused_is_not_fetched_again_until_the_operator_says_so(desk, box):
    data = bytearray(bundle(program("new"), pack="stored"))
    data[-1] ^= 1
    offer(desk, bytes(data), max_failures=9)
    loop = Loop(box, url=desk.url)
    loop.question()
    assert "is damaged" in loop.updater.status()["problem"]
    boxes = []
    for attempt in (1, 1, 2):
        rollout.save(desk.fleet, {"UNIX": rollout.Rollout(**{
            **rollout.load(desk.fleet)["UNIX"].__dict__, "attempt": attempt})})  # fmt: skip
        loop.lines.clear()
        loop.question()
        boxes.append(len(loop.lines))
    assert boxes == [0, 0, 1]


def test_a_program_that_came_back_is_reported_and_not_tried_again(desk, box):
    data = bundle(program("new"))
    offer(desk, data, max_failures=1)
    Loop(box, url=desk.url).question()
    for _ in range(4):
        box.boot()
    loop = Loop(box, url=desk.url)
    loop.question()
    assert (said(desk).state, said(desk).attempt) == ("returned", 1)
    assert loop.left is None
    stopped = rollout.load(desk.fleet)["UNIX"]
    assert (stopped.state, stopped.reason) == ("stopped", "office-a failed")
    assert any("stopped: office-a failed" in line for line in desk.shop.printed)


def test_it_reads_no_faster_than_it_may(desk, box):
    """A second's budget, then TCP lets the server wait; keepalives have the line meanwhile."""
    files = {f"haaro/m{i}.py": hashlib.sha512(bytes([i])).digest() * 100 for i in range(10)}
    data = bundle(files, pack="stored")
    offer(desk, data)
    loop = Loop(box, url=desk.url, rate_kbit=64)
    loop.question()
    assert box.version("b") == "0.2.0-r1"
    assert loop.ms >= (len(data) // 8000 - 2) * 1000


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 300, b"nonsense\r\n\r\n", b"HTTP/1.0 500 no\r\n\r\n",
     b"HTTP/1.0 200 OK\r\n\r\n" + b"a" * 64 + b" 5", b"x" * 5000,
     b"HTTP/1.0 200 OK\r\n\r\n" + b"../" * 21 + b"a 5 1"],
)  # fmt: skip
def test_a_server_that_answers_nonsense_changes_nothing(box, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            link, _ = listener.accept()
            with link:
                link.recv(4096)
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        loop = Loop(box, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        loop.question()
        thread.join(10)
    assert loop.left is None and loop.updater.status()["problem"]
    assert box.boot() == ("a", False) and not list(box.folder.rglob("*.part"))


def test_a_server_that_is_silent_or_away_is_given_up(box):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        loop = Loop(box, url=url)
        loop.question()
        assert "no answer within 20 s" in loop.updater.status()["problem"]
    loop.question()
    assert loop.updater.status()["problem"]
    assert not loop.sockets


def test_who_asks_from_elsewhere_is_no_box(shop, box):  # noqa: F811
    """Without --any-source a site is its home address."""
    running = server.serve(shop.file, "127.0.0.1", 0, False, shop.printed.append)
    try:
        loop = Loop(box, url=f"http://127.0.0.1:{running.port}")
        loop.question()
        assert "the server answers 403" in loop.updater.status()["problem"]
        assert rollout.load_boxes(inventory.load(shop.file)) == {}
    finally:
        running.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 404), ("/v1/bundle/" + "0" * 64, 404), ("/v1/bundle/../fleet.toml", 404),
     ("/v1/box", 403), ("/v1/box?site=nobody", 403), ("/v1/box?site=office-a&state=x", 400),
     ("/v1/box?site=office-a&state=running&attempt=x", 400)],
)  # fmt: skip
def test_other_questions_are_refused(desk, path, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(desk.url + path, timeout=10)
    assert caught.value.code == status


def test_a_revoked_site_is_offered_nothing(desk, box):
    desk.shop.run("keys", "new")
    desk.shop.change("[site.office-a]\n", '[site.office-a]\nrevoked = "stolen"\n')
    offer(desk, bundle(program("new")))
    loop = Loop(box, url=desk.url)
    loop.question()
    assert loop.left is None and "403" in loop.updater.status()["problem"]


# --- the judge of a trial -----------------------------------------------------------------------


def trial(box, monkeypatch):
    box.install(bundle(program("new")))
    assert box.boot() == ("b", True)
    return Loop(box, slot="b")


def pass_seconds(loop, seconds, registered):
    loop.registered = registered
    for _ in range(seconds):
        loop.ms += 1000
        loop.updater.tick(loop.ms)


def test_a_registration_must_hold_for_ten_seconds(box, monkeypatch):
    loop = trial(box, monkeypatch)
    pass_seconds(loop, 9, True)
    pass_seconds(loop, 1, False)
    pass_seconds(loop, 10, True)
    assert loop.slots.state() == "trial"
    pass_seconds(loop, 1, True)
    assert loop.slots.state() == "running" and loop.left is None
    assert loop.lines == ["update: 0.2.0-r1 is kept"]


def test_without_a_registration_it_goes_back_after_three_minutes(box, monkeypatch):
    loop = trial(box, monkeypatch)
    pass_seconds(loop, 179, False)
    assert loop.left is None
    pass_seconds(loop, 1, False)
    assert loop.left == ANOTHER
    assert box.boot() == ("a", False) and box.slots("a").state() == "returned"


def test_a_trial_takes_no_other_program(box, monkeypatch):
    loop = trial(box, monkeypatch)
    with pytest.raises(ValueError, match="busy with trial"):
        loop.updater.install("x", "0" * 64)


def test_what_the_console_brings_is_installed_and_its_state_is_seen(box):
    """`haaro ota install` must tell this attempt from the one that failed before."""
    box.install(bundle(program("new")))
    for _ in range(4):
        box.boot()
    loop = Loop(box)
    assert loop.updater.status()["state"] == "returned"
    for data, left, state in (
        (bundle(program("old"), "0.0.1-r1"), None, "returned"),
        (bundle(program("next"), "0.3.0-r1"), ANOTHER, "over"),
    ):
        part = Incoming(loop.updater, len(data), hashlib.sha256(data).digest())
        half = len(data) // 2
        assert part.take(0, data[:half]) == half == part.take(0, data[:half])
        assert part.take(half + 1, data[half:]) == half
        assert part.take(half, data[half:]) == len(data)
        assert part.finish() == hashlib.sha256(data).hexdigest()[:8]
        assert loop.updater.status()["state"] == "installing"
        with pytest.raises(ValueError, match="busy"):
            loop.updater.install("x", "0" * 64)
        loop.until(lambda: loop.updater._work is None)
        assert (loop.left, loop.updater.status()["state"]) == (left, state)
    assert box.boot() == ("b", True) and box.version("b") == "0.3.0-r1"


def test_a_damaged_bundle_by_the_console_is_asked_for_again(box):
    loop = Loop(box)
    data = bundle(program("new"))
    part = Incoming(loop.updater, len(data), hashlib.sha256(data).digest())
    part.take(0, b"x" + data[1:])
    with pytest.raises(ValueError, match="send it again"):
        part.finish()
    assert part.offset == 0 and loop.updater.status()["state"] == "running"
    with pytest.raises(ValueError, match="size must be"):
        Incoming(loop.updater, 0, bytes(32))


def test_boxes_that_start_together_do_not_ask_together(box):
    """The first question within a minute, the others within a quarter of the interval."""
    asked = set()
    for octet in range(0, 256, 20):
        loop = Loop(box, url="http://127.0.0.1:9", interval_s=3600)
        made = Updater(loop, loop.slots, loop.options, "", lambda n, o=octet: bytes([o] * n))
        asked.add(made._ask_at // 1000)
        made._ask()
        assert 2700 <= made._ask_at // 1000 <= 4500
        made._end("")
    assert len(asked) > 10 and min(asked) >= 5 and max(asked) <= 65


@pytest.mark.parametrize(
    ("url", "found"),
    [("http://192.0.2.1:8434", ("192.0.2.1", 8434, "")),
     ("http://10.0.0.1/u/", ("10.0.0.1", 80, "/u"))],
)  # fmt: skip
def test_where_the_server_is(url, found):
    assert place(url) == found


def test_work_leaves_the_heap_again(desk, box):
    loop = Loop(box, url=desk.url)
    loop.question()
    loaded = {name for name in updaters.__dict__["unload"].__globals__ if not name.startswith("_")}
    assert not {"pull", "fetch", "install"} & loaded
    assert "haaro.ota.ed25519" not in sys.modules
