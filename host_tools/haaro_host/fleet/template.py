"""The first fleet.toml: what `haaro fleet init` writes, with the comments that explain it."""

TEMPLATE = """\
# The fleet of haaro: one home agent and all its sites. This is the only file to edit; everything
# that the home agent and the boxes read is made from it:
#
#   haaro fleet check                  what is wrong, as a whole
#   haaro fleet add NAME               a new site, with the next free addresses of the plan
#   haaro keys new                     the keys that are missing (kept apart, encrypted)
#   haaro fleet export ha              ha.toml and ha.secrets.toml
#   haaro fleet export router NAME     router.json and router.secrets.json
#
# Keep it in git. No key belongs in here; do not add the key store and the exported secrets.

version = 1

[fleet]
name = {name}
organisation = {organisation}
# Realm of a new site is SITE.domain; "" leaves realms empty. Realms sort the list that routers get.
domain = {domain}
# How to reach the running home agent. "" is one on this machine, by home_agent.socket; otherwise a
# command that runs `haaro ha` where it is: "ssh root@ha.example.net haaro ha".
ask_home_agent = ""
# How to reach a router, for `haaro top`: a command that prints its status as JSON; {{site}} and
# {{home_address}} are filled in. "" asks none, and direct paths are not shown.
ask_router = ""

[home_agent]
# Where routers register: the address that this home agent answers at, UDP port 434.
address = {address}
# Every site's home address comes from here. If address is public, these should be public too, or
# no direct path between sites can be set up.
home_addresses = {home_addresses}
# Networks behind the home agent itself that sites shall reach.
home_networks = []
# Paths on the home agent's machine.
state = "/var/lib/haaro/ha.sqlite"
socket = "/run/haaro/ha.sock"

[plan]
# Networks of sites must lie inside these, and `haaro fleet add` takes the next free one.
prefixes = {plan}
site_prefix_length = 24

[keys]
# The key store, beside this file: mode 0600, encrypted with a passphrase.
store = "fleet.keys"
# Of new keys: hmac-sha256, hmac-sha1 or hmac-md5 (the one that RFC 5944 asks everybody to have).
algorithm = "hmac-sha256"

# What holds for each site that does not say otherwise.
[defaults]
board = "UNIX"
# With which other sites a site shares a key of its own: "none", "all", or a list of names. Without
# one, two sites prove themselves by return routability, which trusts the path by the home agent.
# With one they do not, but both boxes need new files before the first packet goes direct; a box
# holds at most 64 such keys.
peers = "none"

# Any key of router.json (boards/UNIX/router.json shows all). A site's own table
# [site.NAME.router] is laid over this one.
[defaults.router]
lifetime = 300
uplinks = [{{ name = "wan", driver = "linux_netdev", interface = "eth0" }}]

# Sites follow, in the order of their names:
#
#   [site.office-a]
#   home_address = "192.0.2.129"
#   prefixes = ["10.1.0.0/24"]      # the networks behind it
#   realm = "office-a.example.net"
#   unique_id = "a1b2c3d4e5f6"      # of the board; guards against flashing the wrong box
#   priority = 10                   # 0 is listed first when the list of sites is cut
#   implicit = true                 # the home agent assigns the networks (RFC 5177 3.2)
#   peers = ["office-b"]
"""
