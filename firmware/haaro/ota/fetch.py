"""An HTTP/1.0 client that never waits: one GET after the other, each a generator.

It yields True to be called again at once, False to be called when its socket or a new second has
come. Reads no faster than the updater's budget for a second lets it.
"""

import socket

from haaro.compat import const

_POLLIN, _POLLOUT = const(1), const(4)
_PIECE = const(512)
_HEAD_LIMIT = const(1024)
_PATIENCE_MS = const(20000)
# EAGAIN, ENOTCONN, EALREADY, EINPROGRESS of Linux, and those of lwIP's C library.
_NOT_YET = (11, 107, 114, 115, 119, 120, 128)


class FetchError(OSError):
    """The server cannot be reached, or answers what nobody can read."""


class Client:
    """Asks `host` (dotted quad) at `port`, from `source` (dotted quad, "": whatever the port of
    MicroPython takes). `updater` has `now`, `budget` and the loop's `poll`.
    """

    def __init__(self, updater, source: str, host: str, port: int) -> None:
        self.socket = None
        self.status = 0
        self._updater = updater
        self._source = source
        self._host = host
        self._port = port
        self._until = 0
        self._registered = 0

    def getting(self, path: str, at: int, sink):
        """Hand the body of `path` from octet `at` on to `sink(octets)`. Raises OSError.

        `status` is the answer's, 0 before there is one; `sink` is called only for 200 and 206. The
        server may begin at 0 although asked otherwise: then it is 200.
        """
        updater = self._updater
        self.status = 0
        self.socket = sock = socket.socket()
        self._until = updater.now + _PATIENCE_MS
        try:
            sock.setblocking(False)
            if self._source:
                sock.bind(socket.getaddrinfo(self._source, 0)[0][-1])
            try:
                sock.connect(socket.getaddrinfo(self._host, self._port)[0][-1])
            except OSError as error:
                if error.errno not in _NOT_YET:
                    raise
            self._watch(_POLLOUT)
            words = "GET %s HTTP/1.0\r\nHost: %s\r\n" % (path, self._host)
            if at:
                words += "Range: bytes=%d-\r\n" % at
            request = (words + "\r\n").encode()
            while request:
                sent = self._try(sock.send, request)
                request = request[sent or 0 :]
                if request:
                    yield self._wait()
            self._watch(_POLLIN)
            yield from self._answer(sock, sink)
        finally:
            self.close()

    def close(self) -> None:
        """Give the socket back; also for who leaves `getting` in the middle: MicroPython does not
        run what a generator that is dropped would do at its end.
        """
        if self.socket is not None:
            self._watch(0)
            self.socket.close()
            self.socket = None

    def _answer(self, sock, sink):
        head = b""
        while True:
            piece = self._try(sock.recv, _PIECE)
            if piece is None:
                yield self._wait()
                continue
            if not piece:
                break
            self._until = self._updater.now + _PATIENCE_MS
            self._updater.budget -= len(piece)
            if not self.status:
                head += piece
                end = head.find(b"\r\n\r\n")
                if end < 0:
                    if len(head) > _HEAD_LIMIT:
                        raise FetchError("the answer has no end of head")
                    continue
                piece = head[end + 4 :]
                try:
                    self.status = int(head.split(None, 2)[1])
                except (ValueError, IndexError):
                    raise FetchError("the answer is no HTTP")
                head = b""
            if piece and self.status in (200, 206):
                sink(piece)
            yield True
            if self._updater.budget <= 0:
                # What the kernel holds closes the window: the server waits.
                self._watch(0)
                while self._updater.budget <= 0:
                    yield False
                self._watch(_POLLIN)
        if not self.status:
            raise FetchError("no answer")

    def _try(self, call, argument):
        """Return what `call` returns, None if it would have to wait."""
        try:
            return call(argument)
        except OSError as error:
            if error.errno not in _NOT_YET:
                raise
            return None

    def _wait(self):
        if self._updater.now >= self._until:
            raise FetchError("no answer within %d s" % (_PATIENCE_MS // 1000))
        return False

    def _watch(self, events):
        poll = self._updater.poll
        if self._registered and not events:
            poll.unregister(self.socket)
        elif events:
            poll.register(self.socket, events)
        self._registered = events
