"""A board's network interfaces, simulated at the interface of MicroPython's module `network`.

Written from the module's documentation and the issues that are cited; shares nothing with the
drivers. Runs on CPython, where tests move its clock, and in MicroPython's unix port, where
fakes/network.py makes it the module and the world is a file that the test rewrites.
"""

STOPPED, IDLE, JOINING, JOINED, LOST = range(5)


class World:
    """What is around the board.

    access_points: dicts of ssid, key ("" open), bssid, rssi, address, mask, gateway, and interface,
    the namespace's that is joined. cable: such a dict of the last four, or None.
    """

    # Milliseconds from connect() to an address, to a refusal, and to "no access point found".
    JOIN, REFUSE, SEARCH = 300, 300, 2400

    def __init__(self, clock, port="esp32"):
        self.clock = clock
        self.port = port
        self.access_points = []
        self.cable = None
        self.calls = []
        self.scripts = {}  # ssid: reasons that the next attempts end with

    def look(self):
        """Take in what has changed outside."""

    def find(self, ssid, bssid=None):
        """Return the access point that a station would take, None if there is none."""
        self.look()
        found = None
        for ap in self.access_points:
            fits = ap["ssid"] == ssid and bssid in (None, ap["bssid"])
            if fits and (found is None or ap["rssi"] > found["rssi"]):
                found = ap
        return found

    def link(self, configuration, up):
        """The interface of `configuration` has got or lost its address."""


def names_of(port):
    """Return the constants that the port's module has."""
    if port == "esp32":
        return {
            "STAT_IDLE": 1000, "STAT_CONNECTING": 1001, "STAT_GOT_IP": 1010,
            "STAT_BEACON_TIMEOUT": 200, "STAT_NO_AP_FOUND": 201, "STAT_WRONG_PASSWORD": 202,
            "STAT_CONNECT_FAIL": 203, "STAT_HANDSHAKE_TIMEOUT": 204,
            "ETH_INITIALIZED": 0, "ETH_STARTED": 1, "ETH_STOPPED": 2, "ETH_CONNECTED": 3,
            "ETH_DISCONNECTED": 4, "ETH_GOT_IP": 5, "PHY_LAN8720": 1, "PHY_IP101": 2,
            "PHY_RTL8201": 3, "PHY_DP83848": 4, "PHY_KSZ8081": 7, "PHY_W5500": 102,
        }  # fmt: skip
    return {
        "STAT_IDLE": 0, "STAT_CONNECTING": 1, "STAT_GOT_IP": 3, "STAT_CONNECT_FAIL": -1,
        "STAT_NO_AP_FOUND": -2, "STAT_WRONG_PASSWORD": -3,
    }  # fmt: skip


class Interface:
    """What all classes have: addresses by `ipconfig` and by `ifconfig`."""

    IFNAME = ""

    def __init__(self, world):
        self.world = world
        self.on = False
        self.static = None
        self.now = None  # configuration by which it is up

    def active(self, on=None):
        if on is None:
            return self.on
        self.world.calls.append(("active", bool(on)))
        if not on:
            self._lose()
        self.on = bool(on)
        return self.on

    def ipconfig(self, name=None, **values):
        if name is not None:
            address, mask, gateway, _ = self.ifconfig()
            return {"addr4": (address, mask), "gw4": gateway, "dhcp4": self.static is None}[name]
        for key, value in values.items():
            if key == "addr4":
                address, _, plen = value.partition("/")
                bits = 0xFFFFFFFF << 32 - int(plen) & 0xFFFFFFFF
                mask = ".".join([str(bits >> shift & 255) for shift in (24, 16, 8, 0)])
                self.static = (address, mask, self.static[2] if self.static else "0.0.0.0")
            elif key == "gw4":
                self.static = self.static[:2] + (value,)
            else:
                raise ValueError("unexpected key")
        return None

    def ifconfig(self, values=None):
        if values is not None:
            self.static = tuple(values[:3])
            return None
        if self.static:
            return self.static + ("0.0.0.0",)
        if self.now is None:
            return ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0")
        return (self.now["address"], self.now["mask"], self.now["gateway"], "0.0.0.0")

    def config(self, *names, **values):
        if names:
            if names[0] == "ifname" and self.IFNAME:
                return self.IFNAME
            if names[0] == "mac":
                return b"\x02\x00\x5e\x10\x00\x01"
            raise ValueError("unknown config param")
        for key, value in values.items():
            self._configure(key, value)
        return None

    def _configure(self, key, value):
        raise ValueError("unknown config param")

    def _gain(self, configuration):
        if self.now is not configuration:
            self._lose()
            self.now = configuration
            self.world.link(configuration, True)

    def _lose(self):
        if self.now is not None:
            gone, self.now = self.now, None
            self.world.link(gone, False)


class Wlan(Interface):
    """The station of an ESP32 or of a Pico W.

    esp32 (docs of network.WLAN, and issue 12315 on what `reconnects` does): a failed attempt is
    made again without end while `reconnects` is 0, and status() reads CONNECTING all that time.
    """

    IF_STA = 0
    PM_NONE = 0

    def __init__(self, world, names):
        super().__init__(world)
        self.IFNAME = "st1" if world.port == "esp32" else ""
        self._names = names
        self._state = STOPPED
        self._reason = names["STAT_IDLE"]
        self._wanted = None  # (ssid, key, bssid)
        self._end = 0
        self._reconnects = 0
        self.settings = {}

    def active(self, on=None):
        if on is not None and not on:
            self._state = STOPPED
            self._wanted = None
            self._reason = self._names["STAT_IDLE"]
        elif on and not self.on:
            self._state = IDLE
        return super().active(on)

    def connect(self, ssid, key=None, *, bssid=None):
        self.world.calls.append(("connect", ssid, bssid))
        if not self.on:
            raise OSError("Wifi Not Started")
        if self._state == JOINING and self.world.port == "esp32":
            raise OSError("Wifi Internal Error")  # issue 17661
        self._wanted = (ssid, key, bssid)
        self._begin()

    def disconnect(self):
        self.world.calls.append(("disconnect",))
        if not self.on:
            raise OSError("Wifi Not Started")
        if self._state != STOPPED:
            self._state = IDLE
        self._wanted = None
        self._lose()

    def _begin(self):
        ssid, key, bssid = self._wanted
        ap = self.world.find(ssid, bssid)
        names = self._names
        script = self.world.scripts.get(ssid)
        self._lose()
        self._state = JOINING
        self._ap = None
        if script:
            self._next_reason = script.pop(0)
            self._end = self.world.clock() + World.REFUSE
        elif ap is None:
            self._next_reason = names["STAT_NO_AP_FOUND"]
            self._end = self.world.clock() + World.SEARCH
        elif (key or "") != ap["key"]:
            self._next_reason = names["STAT_WRONG_PASSWORD"]
            self._end = self.world.clock() + World.REFUSE
        else:
            self._ap = ap
            self._end = self.world.clock() + World.JOIN

    def _step(self):
        self.world.look()
        if self._state == JOINING and self.world.clock() >= self._end:
            if self._ap is not None:
                self._state = JOINED
                self._reason = self._names["STAT_IDLE"]
                self._gain(self._ap)
            else:
                self._fail(self._next_reason)
        elif self._state == JOINED and self.now not in self.world.access_points:
            self._lose()
            self._fail(self._names.get("STAT_BEACON_TIMEOUT", self._names["STAT_IDLE"]))

    def _fail(self, reason):
        self._reason = reason
        self._state = LOST
        if self.world.port == "esp32" and not self._reconnects and self._wanted:
            self._begin()

    def status(self, name=None):
        self._step()
        if name == "rssi":
            if self.now is None:
                if self.world.port == "esp32":
                    raise OSError("Wifi Not Connected")
                return 0
            return self.now["rssi"]
        if self._state == JOINED:
            return self._names["STAT_GOT_IP"]
        if self._state == JOINING:
            return self._names["STAT_CONNECTING"]
        return self._reason

    def isconnected(self):
        return self.status() == self._names["STAT_GOT_IP"]

    def scan(self):
        self.world.calls.append(("scan",))
        self.world.look()
        return [(ap["ssid"].encode(), ap["bssid"], 1, ap["rssi"], 3, False)
                for ap in self.world.access_points]  # fmt: skip

    def _configure(self, key, value):
        if key == "reconnects" and self.world.port == "esp32":
            self._reconnects = value
        elif key != "pm":
            raise ValueError("unknown config param")
        self.settings[key] = value


class Lan(Interface):
    """network.LAN of the esp32 port. `lie`: what Wi-Fi's events have made of the status (19123)."""

    IFNAME = "eth0"

    def __init__(self, world, names):
        super().__init__(world)
        self._names = names
        self.lie = None

    def active(self, on=None):
        if on is not None:
            self.lie = None
        return super().active(on)

    def status(self):
        self.world.look()
        if not self.on:
            return self._names["ETH_STOPPED"]
        if self.world.cable is None:
            # Its address stays for two minutes (esp_netif's lost-IP timer).
            return self._names["ETH_DISCONNECTED"] if self.lie is None else self.lie
        self._gain(self.world.cable)
        return self._names["ETH_GOT_IP"] if self.lie is None else self.lie

    def isconnected(self):
        return self.on  # issue 12741


class Wiznet5k(Interface):
    """network.WIZNET5K of the rp2 port, which asks by DHCP whatever `ipconfig` was told (17127)."""

    def status(self):
        self.world.look()
        if not self.on:
            return 0
        if self.world.cable is None:
            self._lose()
            return 1
        self._gain(self.world.cable)
        return 3

    def isconnected(self):
        return self.status() == 3

    def ipconfig(self, name=None, **values):
        if name is None:
            return None
        return super().ipconfig(name)


def fill(names, world):
    """Make the dict `names` the module `network` of the world's port."""
    constants = names_of(world.port)
    names.update(constants)
    made = {}

    class WLAN(Wlan):
        def __new__(cls, which=0):
            if "wlan" not in made:
                made["wlan"] = Wlan(world, constants)
            return made["wlan"]

    names["WLAN"] = WLAN
    names["country"] = lambda code=None: world.calls.append(("country", code))
    if world.port == "esp32":

        def lan(*arguments, **keywords):
            if "lan" not in made:
                world.calls.append(("LAN", arguments, keywords))
                made["lan"] = Lan(world, constants)
            return made["lan"]

        names["LAN"] = lan
    else:

        def wiznet(*arguments):
            if "lan" not in made:
                world.calls.append(("WIZNET5K", arguments))
                made["lan"] = Wiznet5k(world)
            return made["lan"]

        names["WIZNET5K"] = wiznet
    return names
