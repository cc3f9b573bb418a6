"""Wi-Fi passwords, PINs and APN passwords: given by file, sealed, exported to who needs them."""

import json

import pytest

from haaro.shell import config, secrets

PASSWORD, PIN, APN = "canary-of-the-office", "4711", "canary-of-the-apn"
UPLINKS = """
[site.office-b.router]
uplinks = [
  { name = "wlan", driver = "wifi", networks = [{ ssid = "Office" }, { ssid = "Café", open = true }] },
  { name = "lte", driver = "cellular", port = "/dev/ttyUSB2", apn = "internet" },
]

"""  # noqa: E501


@pytest.fixture
def site(shop, tmp_path):
    """The shop with office-b on Wi-Fi and a modem, and files with its secrets."""
    shop.change("[site.office-c]", UPLINKS + "[site.office-c]")
    for name, text in (("wifi", PASSWORD), ("pin", PIN), ("apn", APN)):
        path = tmp_path / name
        path.write_text(text + "\n")
        path.chmod(0o600)
    shop.run("keys", "new")
    return shop


def exported(shop, name):
    shop.run("fleet", "export", "router", name)
    return shop.directory / "routers" / name / "router.secrets.json"


def test_passwords_reach_the_secrets_file_of_the_box_that_uses_them_and_nothing_else(
    site, tmp_path
):
    said = site.run("keys", "wifi", "Office", "--password-file", tmp_path / "wifi")
    assert "haaro fleet export router office-b" in said
    files = ("--pin-file", tmp_path / "pin", "--password-file", tmp_path / "apn")
    site.run("keys", "modem", "office-b", "lte", *files)
    path = exported(site, "office-b")
    assert secrets.wifi(str(path)) == {"Office": PASSWORD}
    assert secrets.modem(str(path), "lte") == {"password": APN, "pin": PIN}
    _, options = config.load(str(path.with_name("router.json")))
    assert [uplink["driver"] for uplink in options["uplinks"]] == ["wifi", "cellular"]
    other = exported(site, "office-a").read_text()
    for secret in (PASSWORD, APN):
        assert secret not in other
        assert secret not in path.with_name("router.json").read_text()
        assert secret not in site.file.read_text()
        assert secret.encode() not in (site.directory / "fleet.keys").read_bytes()
        assert not [text for text in site.printed if secret in text]


def test_a_network_without_a_password_is_not_exported_and_the_remedy_is_named(site):
    said = site.run("fleet", "export", "router", "office-b", status=1)
    assert "no password for the Wi-Fi network 'Office'" in said
    assert "haaro keys wifi 'Office'" in said
    assert not (site.directory / "routers" / "office-b").exists()


def test_a_password_of_a_wrong_form_is_refused_unseen(site, tmp_path):
    (tmp_path / "wifi").write_text("canary!\n")
    said = site.run("keys", "wifi", "Office", "--password-file", tmp_path / "wifi", status=1)
    assert "8 to 63 characters" in said and "canary!" not in said
    (tmp_path / "pin").write_text("12x4\n")
    pin = ("--pin-file", tmp_path / "pin")
    said = site.run("keys", "modem", "office-b", "lte", *pin, status=1)
    assert "4 to 8 digits" in said and "12x4" not in said
    (tmp_path / "apn").chmod(0o644)
    readable = ("--password-file", tmp_path / "apn")
    assert "chmod 600" in site.run("keys", "modem", "office-b", "lte", *readable, status=1)


def test_removed_is_gone_and_unknown_is_said(site, tmp_path):
    site.run("keys", "wifi", "Office", "--password-file", tmp_path / "wifi")
    site.run("keys", "wifi", "Office", "--remove")
    site.run("fleet", "export", "router", "office-b", status=1)
    assert "no password is kept" in site.run("keys", "wifi", "Office", "--remove", status=1)
    pin = ("--pin-file", tmp_path / "pin")
    said = site.run("keys", "modem", "office-b", "umts", *pin, status=1)
    assert "its cellular uplinks: lte" in said


def test_a_revoked_box_takes_its_pin_along_and_the_wifi_password_is_said_to_be_known(
    site, tmp_path
):
    site.run("keys", "wifi", "Office", "--password-file", tmp_path / "wifi")
    site.run("keys", "modem", "office-b", "lte", "--pin-file", tmp_path / "pin")
    assert "password of Wi-Fi Office" in site.run("keys", "revoke", "office-b", status=1)
    site.run("keys", "new", "office-b", "--replacement")
    document = json.loads(exported(site, "office-b").read_text())
    assert "modems" not in document
    assert document["wifi"] == [{"ssid": "Office", "password": PASSWORD}]
