"""The Makefile, the pins and the CI entry agree with each other."""

import re
import subprocess
import tomllib

import pytest

from haaro_host.lab import system
from tests.meta import mpy_size
from tests.meta.repository import FIRMWARE, ROOT

PACKAGES = "iproute2 nftables iperf3 ethtool iputils-ping procps util-linux"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    """Return {normalised name: version} of all requirements-*.txt; every line of them is a pin."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.glob("requirements-*.txt")):
        for line in path.read_text().splitlines():
            requirement = line.split("#")[0].split(";")[0].strip()
            if requirement:
                match = re.fullmatch(r"([\w.-]+)==([\w.]+)", requirement)
                assert match, f"{path.name}: not pinned to one version: {line}"
                name = re.sub(r"[-_.]+", "-", match[1]).lower()
                assert found.setdefault(name, match[2]) == match[2], f"{path.name}: {line}"
    return found


def targets(makefile: str) -> set[str]:
    return set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())


def test_run_time_dependencies_are_pinned_as_in_development():
    for requirement in PROJECT["project"]["dependencies"]:
        name, _, version = requirement.partition("==")
        assert pins().get(name) == version, requirement
    assert all("==" in requirement for requirement in PROJECT["build-system"]["requires"])


def test_make_help_lists_every_target():
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  ([a-z-]+) ", listing.stdout, re.M))
    assert listed == targets((ROOT / "Makefile").read_text()) - {
        "system-packages",
        "test-packages",
    }


def test_ci_calls_only_make_targets():
    steps = re.findall(r"^step \w+ \d+ (.*)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert {"make lint", "make test"} <= set(steps)
    known = targets((ROOT / "Makefile").read_text())
    assert all(step.split()[0] == "make" and step.split()[1] in known for step in steps)


def test_the_ci_entry_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.fixture
def empty_path(tmp_path):
    """Return a PATH on which there is nothing but an `id` that says: not root."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "packages", "status", "more"),
    [
        ([], PACKAGES, 1, []),
        (["/nonexistent/python3"], "python3-venv", 1, []),
        (
            ["--tests"],
            "tshark slirp ppp isc-dhcp-client busybox-static dropbear-bin openssh-client",
            0,
            ["haaro: the tests that call it are skipped"],
        ),
    ],
)
def test_a_user_who_is_not_root_is_told_each_missing_package(
    empty_path, arguments, packages, status, more
):
    script = ROOT / "host_tools" / "system_packages.sh"
    run = subprocess.run(
        ["/bin/sh", str(script), *arguments],
        env={"PATH": empty_path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == status
    assert run.stderr.splitlines() == [
        f"haaro: missing on this system: {packages}",
        f"haaro: as root on Debian or Ubuntu: apt-get install {packages}",
        *more,
    ]


def test_the_size_table_follows_imports_inside_functions():
    files, computed = mpy_size.reachable(FIRMWARE / "main.py")
    names = {path.relative_to(FIRMWARE).as_posix() for path in files}
    assert {"main.py", "haaro/__init__.py", "haaro/shell/loop.py", "haaro/wire/ipv4.py"} <= names
    assert computed == []


def test_setup_installs_what_the_lab_asks_for():
    assert set(system.TOOLS.values()) <= set(PACKAGES.split())
