"""Run the tests of this folder inside MicroPython's unix port.

    micropython -X heapsize=384k unix_port_tests/run.py [part of a name ...]

Each file test_*.py runs in a process of its own, with the heap of this one or that of a line
`# heapsize: 96k` near its top: its functions test_* in order, one line a test. The last line of the
output is "N passed, N failed"; the exit status is 1 when a test failed or none ran.
"""

import gc
import os
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path.append(HERE + "/../firmware")

_SECONDS_A_FILE = 300
_SUMMARY = "summary: %d passed, %d failed"


def main(arguments: list[str]) -> int:
    """Run the files in child processes; return the exit status."""
    if arguments[:1] == ["--file"]:
        return run_file(arguments[1], arguments[2:])
    passed = failed = 0
    for name in sorted(os.listdir(HERE)):
        if name.startswith("test_") and name.endswith(".py"):
            p, f = spawn(name, arguments)
            passed += p
            failed += f
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


def spawn(name: str, wanted: list[str]) -> tuple[int, int]:
    """Run one file in a child, copy its lines, return (passed, failed)."""
    path = HERE + "/" + name
    output = "/tmp/haaro-unix-port-%s.out" % os.urandom(6).hex()
    command = "timeout %d '%s' -X heapsize=%s '%s/run.py' --file '%s' %s > '%s' 2>&1" % (
        _SECONDS_A_FILE,
        sys.executable,
        heap_of(path),
        HERE,
        name,
        " ".join(["'%s'" % w for w in wanted]),
        output,
    )
    status = os.system(command)
    counts = None
    with open(output) as lines:
        for line in lines:
            line = line.rstrip()
            if line.startswith("summary: "):
                words = line.split(" ")
                counts = int(words[1]), int(words[3])
            else:
                print(line)
    os.remove(output)
    if counts is None or (status != 0 and not counts[1]):
        print("FAIL %s: the process ended with status %d" % (name, status >> 8 or status))
        return counts[0] if counts else 0, 1
    return counts


def heap_of(path: str) -> str:
    """Return the heap a file asks for, else the size of ours."""
    with open(path) as file:
        for _ in range(12):
            line = file.readline()
            if line.startswith("# heapsize: "):
                return line.split(" ")[2].strip()
    return str(gc.mem_free() + gc.mem_alloc())


def run_file(name: str, wanted: list[str]) -> int:
    """Run the functions test_* of one file here; return the exit status."""
    module = name[:-3]
    passed = failed = 0
    tests: list = []
    try:
        loaded = __import__(module)
        tests = [(n, getattr(loaded, n)) for n in definitions(HERE + "/" + name)]
    except Exception as e:
        failed += 1
        print("FAIL %s: import" % module)
        sys.print_exception(e)
    for test, function in tests:
        title = "%s.%s" % (module, test)
        if wanted and not any(w in title for w in wanted):
            continue
        gc.collect()
        try:
            function()
            passed += 1
            print("ok   " + title)
        except Exception as e:
            failed += 1
            print("FAIL " + title)
            sys.print_exception(e)
    print(_SUMMARY % (passed, failed))
    return 1 if failed else 0


def definitions(path: str) -> list[str]:
    """Return the names of the test functions in the order of the file."""
    names = []
    with open(path) as file:
        for line in file:
            if line.startswith("def test_"):
                names.append(line[4 : line.index("(")])
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
