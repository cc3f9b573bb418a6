"""The Makefile, the pins and the CI entry agree with each other."""

import re
import subprocess
import tomllib

from tests.meta.repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    """Return {normalised name: version} of requirements-dev.txt, every line of which is a pin."""
    found = {}
    for line in (ROOT / "requirements-dev.txt").read_text().splitlines():
        requirement = line.split("#")[0].split(";")[0].strip()
        if requirement:
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)", requirement)
            assert match, f"not pinned to one version: {line}"
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
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
    assert listed == targets((ROOT / "Makefile").read_text()) - {"system-packages"}


def test_ci_calls_only_make_targets():
    steps = re.findall(r"^step \w+ \d+ (.*)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert {"make lint", "make test"} <= set(steps)
    known = targets((ROOT / "Makefile").read_text())
    assert all(step.split()[0] == "make" and step.split()[1] in known for step in steps)


def test_the_ci_entry_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
