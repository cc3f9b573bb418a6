"""For pytest: marks the keys of a run, looks at all that it printed, logged and left behind."""

import os
import shutil
from pathlib import Path

import pytest

from tests.canary import scan
from tests.canary.site import sitecustomize

SITE = Path(__file__).with_name("site")
BUILD = Path(__file__).resolve().parents[2] / "build"
# Captures and logs of labs are looked at before they are removed.
_REMOVED = (str(BUILD / "test-artifacts"), "/run/haaro-lab/")
_HITS = pytest.StashKey[list]()


def pytest_configure(config):
    sitecustomize.install()
    known = os.environ.get("PYTHONPATH", "")
    if str(SITE) not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SITE), known]))
    config.stash[_HITS] = []
    if not getattr(shutil.rmtree, "looks", False):
        shutil.rmtree = _looking(shutil.rmtree)


def _looking(remove):
    def rmtree(path, *arguments, **options):
        found = []
        if str(path).startswith(_REMOVED):
            found = scan.hits(Path(path))
        remove(path, *arguments, **options)
        assert not found, f"a key stood in {', '.join(found)}"

    rmtree.looks = True
    return rmtree


def pytest_runtest_logreport(report):
    texts = [report.longreprtext, *(text for _, text in report.sections)]
    if any(scan.in_text(text) for text in texts):
        _reports[f"what {report.nodeid} printed"] = True


_reports = {}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    config = session.config
    if hasattr(config, "workerinput"):
        return
    found = config.stash[_HITS]
    found += _reports
    places = [BUILD / "test-artifacts"]
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        places.append(factory.getbasetemp())
    found += scan.hits(*(place for place in places if place.exists()))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    for each in config.stash[_HITS]:
        terminalreporter.write_line(f"CANARY: a key stands in {each}", red=True)
