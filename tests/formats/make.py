"""Writes the fixtures of today's formats: `python tests/formats/make.py DIRECTORY`.

Run once when a format gets a new number, and keep the result for ever beside the older ones: every
later weft must read them. The content is that of `held` and `objects`, which the tests compare.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import zlib
from contextlib import closing
from pathlib import Path

from weft.agent.events import Log
from weft.agent.given import FORMAT as GIVEN_FORMAT
from weft.agent.given import Given
from weft.agent.journal import FORMAT as JOURNAL_FORMAT
from weft.agent.journal import Journal
from weft.model.attachment import (
    Adopted,
    Assigned,
    Attachment,
    AttachmentKey,
    Former,
    NamespaceId,
    PodRef,
)
from weft.model.bandwidth import Bandwidth
from weft.model.bridge import Bridged
from weft.model.egress import EgressList, Flow
from weft.model.ports import PortMapping
from weft.store.contract import Change
from weft.store.sqlite import SqliteStore
from weft.store.sqlite_file import FORMAT as STORE_FORMAT
from weft.wire.local import VERSION, CniRequest, encode_cni_request

BOOT = "11111111-2222-3333-4444-555555555555"
GIVEN = [("net/ipv4/ip_forward", "0", "1")]
COOLING = [("10.244.0.9", 7, 12.5)]
LIST = EgressList(flows=(Flow(6, bytes((8, 8, 8, 8)), bytes((8, 8, 8, 9)), 53, 53),))
PORTS = (PortMapping(protocol="udp", host_port=5353, container_port=53, host_ip="10.0.0.1"),)
OBJECTS = {
    "/ippools/default-ipv4": b'{"apiVersion":"weft.dev/v1alpha1","kind":"IPPool",'
    b'"metadata":{"name":"default-ipv4"},"spec":{"cidr":"10.244.0.0/16"}}',
    "/namespaces/blue": b'{"apiVersion":"weft.dev/v1alpha1","kind":"Namespace",'
    b'"metadata":{"name":"blue","labels":{"team":"a"}}}',
}
REQUEST = CniRequest(
    program="weft",
    environment=(("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")),
    stdin=b'{"cniVersion":"1.1.0","name":"net","type":"weft"}',
    flags=1,
    started_ns=5,
)


def held(number: int = JOURNAL_FORMAT) -> Attachment:
    """The attachment that the journal of this format holds."""
    key = AttachmentKey("net", "c1", "eth0")
    return Attachment(
        key=key,
        state="ready",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=(
            Assigned(address="10.244.0.5", pool="default-ipv4", block="10.244.0.0/26", sequence=3),
        ),
        netns=NamespaceId(dev=4, ino=4026532000),
        sandbox="/run/netns/c1",
        pod=PodRef(namespace="blue", name="web", uid="u-1"),
        labels={"app": "web"},
        version="1.1.0",
        hooked=number > 2,
        ports=PORTS if number > 2 else (),
        bandwidth=Bandwidth(ingress_rate=8_000_000) if number > 2 else Bandwidth(),
        bridged=Bridged(bridge="yard0", isolated=False, gateway="10.244.0.1/16", prefix6=64)
        if number > 2
        else None,
        adopted=Adopted(index=7, group=3, localnet="1") if number > 2 else None,
        egress=LIST.digest if number > 2 else "",
    )


def taken_over() -> Attachment:
    """The attachment of other plugins that a journal holds from format 3 on."""
    return Attachment(
        key=AttachmentKey("bridged", "c2", "eth0"),
        state="ready",
        host_link="veth1a2b3c4d",
        mac=bytes.fromhex("6efc1f0a2b3c"),
        mtu=1500,
        addresses=(Assigned(address="10.22.0.2", pool="former", block="", sequence=4),),
        sandbox="/run/netns/c2",
        via6=False,
        version="1.0.0",
        former=Former(
            cache="/var/lib/cni/results/bridged-c2-eth0",
            reservations=("/var/lib/cni/networks/bridged/10.22.0.2",),
            plugins=("/opt/cni/bin",),
        ),
    )


def write_all(directory: Path) -> None:
    """One file of each format, named by its number."""
    journal = Journal(directory / f"journal-{JOURNAL_FORMAT}.db", BOOT)
    journal.put(held())
    journal.put(taken_over())
    journal.keep_list(LIST)
    journal.drop(AttachmentKey("net", "gone", "eth0"), ((COOLING[0][0], COOLING[0][1]),), 12.5)
    for key, value in OBJECTS.items():
        journal.saw(key, value)
    given = Given(directory / "given.json", BOOT, journal, Log("error"))
    given.remember(*GIVEN[0])
    given.path.rename(directory / f"given-{GIVEN_FORMAT}.json")
    journal.close()
    asyncio.run(_write_store(directory / f"store-{STORE_FORMAT}.db"))
    (directory / f"queue-{VERSION}.req").write_bytes(encode_cni_request(REQUEST))


async def _write_store(path: Path) -> None:
    store = SqliteStore(str(path))
    await store.commit([Change(key=key, value=value) for key, value in OBJECTS.items()])
    await store.close()


def write_newer(directory: Path) -> None:
    """The same as a weft would leave them that has not been written yet: format 99."""
    for kind, statement in (
        (f"journal-{JOURNAL_FORMAT}", "UPDATE meta SET value = '99' WHERE name = 'format'"),
        (f"store-{STORE_FORMAT}", "UPDATE format SET version = 99"),
    ):
        path = directory / f"{kind.partition('-')[0]}-99.db"
        path.write_bytes((directory / f"{kind}.db").read_bytes())
        with closing(sqlite3.connect(path)) as database:
            database.execute(statement)
            database.execute("PRAGMA user_version = 99")
            database.commit()
    body = b'{"format":99,"boot":"another","values":{}}'
    (directory / "given-99.json").write_bytes(b"crc32 %08x\n%s\n" % (zlib.crc32(body), body))
    frame = bytearray(encode_cni_request(REQUEST))
    frame[4:6] = (99).to_bytes(2, "little")
    (directory / "queue-99.req").write_bytes(frame)


if __name__ == "__main__":
    os.umask(0o077)
    target = Path(sys.argv[1]).resolve()
    write_all(target)
    write_newer(target)
