"""/etc/config/haaro of an OpenWrt box: its text to router.json's document, and back.

Owns the mapping. A `config router NAME` is a document; its objects are sections of their own with
`option router NAME`, of the type that their key is (`uplink` for one of `uplinks`, `peer` of
`peers`); what is deeper is written as JSON. Keys of the secrets file have no place here: everyone
may read /etc/config. Called by the init script through uci.py beside main.py, and by `haaro uci`.
Syntax: OpenWrt's "UCI system", Configuration files.
"""

import json

_LISTS = {"uplink": "uplinks", "peer": "peers"}
# Of the init script, not of router.json.
OWN = ("enabled", "config")
_TRUE = ("1", "true", "on", "yes", "enabled")
_FALSE = ("0", "false", "off", "no", "disabled")
_SECRET = ("mobile_home", "key", "krm", "pin", "password", "secret", "psk")
_DIRECTORY = "/etc/haaro/"
_RUN = "/var/run/haaro/"


class UciError(ValueError):
    """The text is refused; says file, line, what and why."""


def parse(text: str, name: str) -> list:
    """Return [(type, name or "", {option: text or list of texts})] of the file called `name`."""
    sections: list = []
    for number, line in enumerate(text.split("\n"), 1):
        words = _words(line, "%s:%d" % (name, number))
        if not words or words[0] == "package":
            continue
        word = words[0]
        if word == "config" and 2 <= len(words) <= 3:
            sections.append((words[1], words[2] if len(words) == 3 else "", {}))
        elif word in ("option", "list") and len(words) == 3 and sections:
            values = sections[-1][2]
            if word == "list":
                before = values.setdefault(words[1], [])
                if not isinstance(before, list):
                    before = values[words[1]] = [before]
                before.append(words[2])
            else:
                values[words[1]] = words[2]
        else:
            allowed = "allowed are config TYPE [NAME], option NAME VALUE, list NAME VALUE"
            raise UciError("%s:%d: %s: %s" % (name, number, line.strip()[:60], allowed))
    return sections


def routers(sections: list) -> list:
    """Return the names of the router sections."""
    return [name for kind, name, _ in sections if kind == "router"]


def document(sections: list, router: str) -> dict:
    """Return router.json's document of section `router`.

    The configuration's own tables say which of the readings of a text is meant (1 may be a number,
    true, or a name). Raises UciError.
    """
    rules = _rules()
    found = [values for kind, name, values in sections if kind == "router" and name == router]
    if not found:
        known = ", ".join(routers(sections)) or "none"
        raise UciError("router %s: no such section; there are %s" % (router, known))
    made: dict = {"version": 1, "name": router}
    made.update(_values(found[0], rules, OWN))
    for kind, _, values in sections:
        if kind != "router" and values.get("router") == router:
            part = _values(values, rules, ("router",))
            if kind in _LISTS:
                made.setdefault(_LISTS[kind], []).append(part)
            else:
                made[kind] = part
    made.setdefault("secrets", _DIRECTORY + router + "/router.secrets.json")
    made.setdefault("socket", _RUN + router + ".sock")
    return made


def text(made: dict, router: str, enabled: bool = True) -> str:
    """Return the UCI text of a document of router.json as section `router`."""
    lines = ["config router %s" % _quoted(router)]
    lines.append("\toption enabled '%d'" % enabled)
    rest = []
    for key, value in made.items():
        if key == "version" or value is None:
            continue
        if isinstance(value, dict):
            rest.append((key, value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            kind = [kind for kind, many in _LISTS.items() if many == key]
            rest += [(kind[0] if kind else key, item) for item in value]
        else:
            _line(lines, key, value)
    for kind, part in rest:
        lines += ["", "config %s" % kind, "\toption router %s" % _quoted(router)]
        for key, value in part.items():
            if value is not None:
                _line(lines, key, value)
    return "\n".join(lines) + "\n"


def _line(lines: list, key: str, value: object) -> None:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        lines += ["\tlist %s %s" % (key, _quoted(_plain(item))) for item in value]
    else:
        lines.append("\toption %s %s" % (key, _quoted(_plain(value))))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str) and value[:1] not in '{["':
        return value
    return json.dumps(value) if not isinstance(value, str) else '"' + _escaped(value) + '"'


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return "".join([letter if letter >= " " else "\\u%04x" % ord(letter) for letter in value])


def _quoted(value: str) -> str:
    if "\n" in value:
        raise UciError("%r: a line break cannot be in /etc/config" % value)
    return "'" + value.replace("'", "'\\''") + "'"


def _values(values: dict, rules: dict, left_out: tuple) -> dict:
    made = {}
    for key, value in values.items():
        if key in _SECRET:
            raise UciError(
                "%s: a secret in /etc/config, which everyone may read: "
                "remove it there, it belongs into router.secrets.json (mode 0600)" % key
            )
        if key not in left_out:
            made[key] = _read(value, rules.get(key, ()))
    return made


def _rules() -> dict:
    """Return {key: rules} of all tables of the configuration's modules."""
    from haaro.shell import config, config_uplinks

    found: dict = {}
    for module in (config, config_uplinks):
        for name in dir(module):
            table = getattr(module, name)
            for key, row in table.items() if isinstance(table, dict) else ():
                if isinstance(row, tuple) and callable(row[0]):
                    found.setdefault(key, []).append(row[0])
    return found


def _read(value, rules: list):
    """Return the reading that a rule takes, else the likeliest, for the configuration to judge."""
    readings = _readings(value)
    for reading in readings:
        for rule in rules:
            try:
                rule(reading)
                return reading
            except (ValueError, TypeError):
                pass
    return readings[0] if rules else readings[-1]


def _readings(value) -> list:
    """Return what `value` may mean, a text first, the most particular last."""
    if isinstance(value, list):
        return [[_readings(item)[0] for item in value]]
    if value[:1] in ("{", "[", '"'):
        try:
            return [json.loads(value)]
        except ValueError:
            pass
    readings = [value]
    if value in _TRUE or value in _FALSE:
        readings.append(value in _TRUE)
    try:
        readings.append(int(value))
    except ValueError:
        pass
    return readings


def _words(line: str, where: str) -> list:
    """Split as a shell does: '...', "...", \\ and # outside of quotes."""
    words = []
    word: str | None = None
    quote = ""
    letters = iter(line)
    for letter in letters:
        if quote:
            if letter == quote:
                quote = ""
            elif letter == "\\" and quote == '"':
                word = (word or "") + next(letters, "")
            else:
                word = (word or "") + letter
        elif letter in "'\"":
            quote = letter
            word = word or ""
        elif letter == "\\":
            word = (word or "") + next(letters, "")
        elif letter in " \t\r":
            if word is not None:
                words.append(word)
            word = None
        elif letter == "#" and word is None:
            break
        else:
            word = (word or "") + letter
    if quote:
        raise UciError("%s: a quote is not closed" % where)
    if word is not None:
        words.append(word)
    return words


def write(section: str, target: str, source: str) -> str:
    """Write the router.json of `section` of the UCI file `source` to `target` and return the path
    of its socket. Raises UciError, OSError.
    """
    with open(source) as file:
        made = document(parse(file.read(), source), section)
    with open(target + ".new", "w") as file:
        json.dump(made, file)
    import os

    os.rename(target + ".new", target)
    return made["socket"]
