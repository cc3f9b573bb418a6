"""Asks the update server whether there is something for this box, fetches it, installs it.

    GET /v1/box?site=..&slot=..&...   204: nothing, or one line: SHA256 OCTETS ATTEMPT
    GET /v1/bundle/SHA256             the bundle, from any octet on (Range)

The server needs no trust: a bundle is signed. A transfer that broke goes on where it ended, also
after a restart; its head is checked before the rest is fetched.
"""

from haaro.compat import const
from haaro.ota.bundle import Bundle, Refused, judge
from haaro.ota.fetch import Client, FetchError
from haaro.ota.install import installing
from haaro.ota.part import Part
from haaro.shell.staging import remove

_OFFER_LIMIT = const(128)
_BUNDLE_LIMIT = const(16777216)


def pulling(updater, source: str, host: str, port: int, path: str, report: dict):
    """Yield as fetch.Client does; return whether another program is ready to be started.

    Raises Refused (`updater.offered` says which bundle), OSError.
    """
    client = Client(updater, source, host, port)
    words = "&".join("%s=%s" % (key, _quoted(value)) for key, value in sorted(report.items()))
    said = []
    updater.client = client
    yield from client.getting("%s/v1/box?%s" % (path, words), 0, said.append)
    offer = b"".join(said)[:_OFFER_LIMIT].decode().split()
    if client.status == 204:
        return False
    if client.status != 200 or len(offer) != 3:
        raise FetchError("the server answers %d" % client.status)
    digest, octets, attempt = offer[0], int(offer[1]), int(offer[2])
    if len(digest) != 64 or digest.strip("0123456789abcdef") or not 0 < octets <= _BUNDLE_LIMIT:
        raise FetchError("the server's offer is not understood")
    if not updater.wants(digest, attempt):
        return False
    slots = updater.slots
    part = digest[:16] + ".part"
    slots.forget_part(part)
    bundle = Bundle(slots.folder + part)
    try:
        yield from _fetching(updater, client, "%s/v1/bundle/%s" % (path, digest), bundle, octets)
        for _ in installing(slots, bundle, updater.keys, digest, attempt):
            yield True
    except (Refused, ValueError, KeyError, IndexError):
        remove(bundle.path)
        raise
    remove(bundle.path)
    return True


def _fetching(updater, client, path, bundle, octets):
    sink = Part(bundle.path)
    at = sink.octets
    checked = begun_again = False

    def take(piece):
        nonlocal at, checked, begun_again
        if at and client.status == 200:
            # The server begins at 0 whatever it is asked: once that is as good.
            if begun_again:
                raise FetchError("the server cannot go on where it ended")
            sink.begin_again()
            at = 0
            checked = False
            begun_again = True
        sink.take(piece)

    try:
        while at < octets:
            for again in client.getting(path, at, take):
                if not checked and sink.octets > _OFFER_LIMIT:
                    sink.sync()
                    if bundle.look():
                        # What is not ours to run is not fetched either.
                        for _ in bundle.checking(updater.keys):
                            yield True
                        judge(bundle, updater.slots)
                        checked = True
                if sink.octets > octets:
                    raise Refused("it is longer than was said")
                yield again
            if client.status not in (200, 206):
                raise FetchError("the server answers %d" % client.status)
            if sink.octets == at:
                raise FetchError("the server sends nothing more")
            at = sink.octets
    finally:
        sink.close()


def _quoted(value):
    text = ""
    for octet in str(value).encode():
        letter = chr(octet)
        plain = "a" <= letter.lower() <= "z" or letter in "-._0123456789"
        text += letter if plain else "%%%02X" % octet
    return text
