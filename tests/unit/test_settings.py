"""Settings: defaults, and a message with the dotted name for everything wrong."""

from __future__ import annotations

import pytest

from weft.model.errors import Invalid
from weft.model.settings import Settings, load_settings


def test_an_empty_file_means_the_defaults() -> None:
    assert load_settings("") == load_settings("# nothing\n") == load_settings("{}") == Settings()


def test_on_and_off_are_words_not_booleans() -> None:
    settings = load_settings("network:\n  ipv4: on\n  ipv6: off\n  mtu: 1400\n")
    assert (settings.network.ipv4, settings.network.ipv6) == ("on", "off")
    assert settings.network.mtu == 1400


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("ipam:\n  coolDown: 3", "ipam.coolDown", "did you mean 'cooldown'?"),
        ("ipan: {}", "ipan", "did you mean 'ipam'?"),
        ("attach:\n  addTimeout: 0", "attach.addTimeout", ">= 1"),
        ("attach:\n  addTimeout: soon", "attach.addTimeout", "expected float, got str"),
        ("ipam:\n  cooldown: 2000", "ipam.cooldown", "<= 1200"),
        ("ipam:\n  cooldown: 3", "ipam.cooldownFloor", "longer"),
        ("repair:\n  pods: yes", "repair.pods", "expected bool, got str"),
        ("network:\n  mtu: 70000", "network.mtu", "<= 65535"),
        ("network:\n  mtu: 1000", "network.mtu", "1280"),
        ("network:\n  ipv4: true", "network.ipv4", "bool"),
        ("network: {ipv4: off, ipv6: off}", "network.ipv6", "both"),
        ("log:\n  level: warn", "log.level", "did you mean 'warning'?"),
        ("node:\n  name: Big_Box", "node.name", "lower-case"),
        ("paths:\n  store: store.db", "paths.store", "absolute"),
        ("paths:\n  queue: /run/../etc", "paths.queue", "absolute"),
        ("paths:\n  socket: /" + "s" * 107, "paths.socket", "107"),
        ("log:", "log", "null"),
        ("a: 1\n---\nb: 2", "weft.yaml", "one document"),
        ("- 1", "weft.yaml", "mapping"),
        ("ipam:\n  cooldown: .nan", "weft.yaml", "not a usable number"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings(text, source="weft.yaml")
    assert caught.value.field == field
    assert caught.value.reason == "invalid-settings"
    assert says in caught.value.message


def test_small_mtu_is_accepted_when_ipv6_is_off() -> None:
    assert load_settings("network: {mtu: 1000, ipv6: off}").network.mtu == 1000
