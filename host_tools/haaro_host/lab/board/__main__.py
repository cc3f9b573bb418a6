"""`python -m haaro_host.lab.board FLASH LINK`: a board until SIGTERM; SIGUSR1 cuts its power.

It has a network of its own, without a link, unless --same-network is given.
"""

import argparse
from pathlib import Path

from haaro_host.lab.board.pty_board import Board, Faults, serve


def main() -> None:
    """Run one board."""
    parser = argparse.ArgumentParser(prog="haaro_host.lab.board")
    parser.add_argument("flash", type=Path)
    parser.add_argument("link", type=Path)
    parser.add_argument("--unique-id", default="00c0ffee0001")
    parser.add_argument("--heap", default="512k")
    parser.add_argument("--pull-after", type=int, action="append", default=[])
    parser.add_argument("--same-network", action="store_true", help="of whoever starts it")
    given = parser.parse_args()
    faults = Faults(given.pull_after)
    flash, link = given.flash.resolve(), given.link.absolute()
    serve(Board(flash, link, given.unique_id, given.heap, faults=faults), given.same_network)


main()
