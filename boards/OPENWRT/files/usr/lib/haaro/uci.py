# What the init script asks: `micropython uci.py write SECTION FILE` makes router.json of a section
# of /etc/config/haaro (another file: a third word). Prints the path of the router's socket.
import sys

from haaro.shell.uci import write

if len(sys.argv) not in (4, 5) or sys.argv[1] != "write":
    print("usage: uci.py write SECTION FILE [UCI-FILE]", file=sys.stderr)
    sys.exit(2)
try:
    print(write(sys.argv[2], sys.argv[3], (sys.argv[4:] or ["/etc/config/haaro"])[0]))
except (ValueError, OSError) as error:
    print("A fatal error occurred: %s" % error, file=sys.stderr)
    sys.exit(2)
