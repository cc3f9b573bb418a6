"""`python -m haaro_host.lab.board FLASH LINK`: a board until SIGTERM; SIGUSR1 cuts its power.

It has a network of its own, without a link, unless --same-network is given.
"""

import argparse
import signal
from pathlib import Path

from haaro_host.lab.board.pty_board import Board, Faults, StopFlag, leave_the_network


def main() -> None:
    """Run one board."""
    parser = argparse.ArgumentParser(prog="haaro_host.lab.board")
    parser.add_argument("flash", type=Path)
    parser.add_argument("link", type=Path)
    parser.add_argument("--unique-id", default="00c0ffee0001")
    parser.add_argument("--heap", default="448k")
    parser.add_argument("--pull-after", type=int, action="append", default=[])
    parser.add_argument("--same-network", action="store_true", help="of whoever starts it")
    given = parser.parse_args()
    if not given.same_network:
        leave_the_network()
    flag = StopFlag()

    def stop(number: int, frame: object) -> None:
        flag.stop = True

    def cut(number: int, frame: object) -> None:
        flag.power_cut = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGUSR1, cut)
    Board(
        given.flash.resolve(),
        given.link.absolute(),
        given.unique_id,
        given.heap,
        faults=Faults(given.pull_after),
    ).run(flag)


main()
