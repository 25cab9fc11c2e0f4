"""One socket to nftables: transactions, and reading our tables back.

A transaction is begin, messages, end in one send; the kernel does all of it or nothing, and
answers every message that it would not take. Only the last message asks to be acknowledged, so a
success costs one answer. A removal of what is gone fails the whole transaction (ENOENT;
NFT_MSG_DESTROY* only from Linux 6.3): it is sent again without the removals that were refused.
What the kernel puts off is sent once more at once, and then refused: nothing here pauses, because
the agent's loop may be waiting. Who can wait tries again later (`agent.patience`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from weft.kernel.netlink import (
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_ERROR,
    Answer,
    Failure,
    Socket,
    acknowledgement,
    attributes,
    frames,
)
from weft.kernel.nftables import chains, elements, oddities, sets, tables
from weft.kernel.nftables.messages import (
    BATCH_BEGIN,
    BATCH_END,
    REMOVALS,
    Kind,
    bracket,
    compose,
    in_order,
    kind_of,
    read_number,
)
from weft.model.errors import PASSING, KernelRefused
from weft.rows.rules import Chain, Element, Family, Oddity, Rule, Set, Table

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7

_TRIES = 8


class Nftables:
    """nftables of the namespace in which it is made; for one thread at a time."""

    def __init__(self) -> None:
        self._socket = Socket(NETLINK_NETFILTER)

    @property
    def port(self) -> int:
        """Port number of the socket: notifications of our own changes bear it."""
        return self._socket.port

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Nftables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commit(self, messages: Sequence[bytes]) -> list[Failure]:
        """One transaction of `messages`, in the order of their ranks.

        Returns what was refused, with places in `messages`; then nothing was done. A removal of
        what is not there is no refusal.
        """
        return self._repeated(messages, [bracket(BATCH_END)])

    def would(self, messages: Sequence[bytes]) -> list[Failure]:
        """As `commit`, but nothing is done and nobody sees anything: without its end the kernel
        checks a transaction and takes it back, also when we die meanwhile."""
        return self._repeated(messages, [])

    def _repeated(self, messages: Sequence[bytes], end: list[bytes]) -> list[Failure]:
        places = in_order(messages)
        repeated = False
        for _ in range(_TRIES):
            if not places:
                return []
            failures = self._once([messages[place] for place in places], end)
            if not failures:
                return []
            missing = {
                each.index
                for each in failures
                if each.errno == errno.ENOENT and kind_of(messages[places[each.index]]) in REMOVALS
            }
            if missing:
                places = [place for at, place in enumerate(places) if at not in missing]
            elif repeated or not all(each.errno in PASSING for each in failures):
                break
            else:
                repeated = True
        return [Failure(places[each.index], each.errno, each.words) for each in failures]

    def _once(self, messages: Sequence[bytes], end: list[bytes]) -> list[Failure]:
        last = bytearray(messages[-1])
        HEADER.pack_into(last, 0, *_asking(messages[-1]))
        batch = [bracket(BATCH_BEGIN), *messages[:-1], bytes(last), *end]
        try:
            first = self._socket.send(batch)
        except OSError as error:  # EMSGSIZE, ENOBUFS: the batch does not fit the send buffer
            return [Failure(0, error.errno or errno.EIO, "send")]
        return self._answers(first, len(messages))

    def _answers(self, first: int, count: int) -> list[Failure]:
        failures: list[Failure] = []
        while True:
            try:
                datagram = self._socket.receive()
            except OSError as error:
                # too many refusals for the buffer (ENOBUFS): what came tells enough
                return failures or [Failure(0, error.errno or errno.EIO, "receive")]
            for kind, flags, number, body in frames(datagram):
                at = number - first - 1  # the begin of the transaction has number `first`
                if kind != NLMSG_ERROR or not -1 <= at <= count:
                    continue
                code, words = acknowledgement(flags, body)
                if code:
                    failures.append(Failure(min(max(at, 0), count - 1), code, words))
                if at in (-1, count - 1):
                    # The last message's answer comes after all others; one to the begin itself
                    # comes alone or first, and says that the transaction as a whole failed.
                    return failures

    def generation(self) -> int:
        """Number of transactions that this namespace has seen."""
        request = compose(Kind.GETGEN, 0, NLM_F_ACK, 0, b"")
        for _, _, body in self._socket.transact([request]):
            for kind, data in attributes(body, 4):
                if kind == 1:  # NFTA_GEN_ID
                    return read_number(data)
        raise KernelRefused(errno.EPROTO, "tell its nftables generation")

    # -- reading

    def tables(self, family: Family) -> list[Table]:
        """Tables of a family."""
        request = tables.get_tables(family, NLM_F_DUMP)
        return [tables.decode_table(body) for _, body in self._dump(request)]

    def sets(self, family: Family, table: str) -> list[Set]:
        """Sets of a table, without elements."""
        request = sets.get_sets(family, table, NLM_F_DUMP)
        return [sets.decode_set(body) for _, body in self._dump(request)]

    def elements(self, schema: Set) -> list[Element]:
        """All elements of a set."""
        if not sets.is_known(schema):
            return []
        request = elements.get_elements(schema, NLM_F_DUMP)
        found = (item for _, body in self._dump(request) for item in elements.bare(body))
        return elements.rows_of(schema, found)

    def holds(self, schema: Set, rows: Sequence[Element]) -> list[Element]:
        """Those of `rows` that are in the set, as they are there; one exchange for all of them.

        Only for sets without intervals, where the kernel finds an element by its key.
        """
        requests = [_with_ack(elements.get_element(schema, row)) for row in rows]
        try:
            answers, failures = self._socket.exchange(requests)
        except OSError as error:  # as in `_dump`
            raise KernelRefused(error.errno or errno.EIO, "read", schema.name) from error
        for failure in failures:
            if failure.errno != errno.ENOENT:
                raise KernelRefused(failure.errno, "read", str(rows[failure.index]), failure.words)
        return elements.rows_of(schema, _bare_of(answers))

    def chains(self, family: Family, table: str) -> list[Chain]:
        """Chains of a table with their rules."""
        found = [
            row
            for _, body in self._dump(chains.get_chains(family, NLM_F_DUMP))
            if (row := chains.decode_chain(body)).table == table
        ]
        rules: dict[str, list[Rule]] = {row.name: [] for row in found}
        for _, body in self._dump(chains.get_rules(family, table, None, NLM_F_DUMP)):
            _, chain, rule = chains.decode_rule(body)
            rules.setdefault(chain, []).append(rule)
        return [_ruled(row, rules[row.name]) for row in found]

    def oddities(self, family: Family, table: str) -> list[Oddity]:
        """Stateful objects and flowtables of a table."""
        found = []
        for question in oddities.questions(family):
            for kind, body in self._dump(question):
                row = oddities.decode(kind & 0xFF, body)
                if row is not None and row.table == table:
                    found.append(row)
        return found

    def counters(self, family: Family, table: str) -> dict[str, tuple[int, int]]:
        """Packets and octets of the first counter of each chain that has one, by chain."""
        found: dict[str, tuple[int, int]] = {}
        for _, body in self._dump(chains.get_rules(family, table, None, NLM_F_DUMP)):
            chain = chains.chain_of(body)[1]
            pair = chains.figures(body)
            if pair is not None:
                found.setdefault(chain, pair)
        return found

    def _dump(self, request: bytes) -> list[tuple[int, memoryview]]:
        """A dump; nothing where the table or set itself is not there."""
        try:
            return self._socket.dump(request)
        except Failure as failure:
            if failure.errno == errno.ENOENT:
                return []
            raise KernelRefused(failure.errno, "read packet rules", hint=failure.words) from failure
        except OSError as error:  # ENOBUFS: no room for the request, or for the answer
            raise KernelRefused(error.errno or errno.EIO, "read packet rules") from error


def _asking(message: bytes) -> tuple[int, int, int, int, int]:
    length, kind, flags, number, port = HEADER.unpack_from(message)
    return length, kind, flags | NLM_F_ACK, number, port


def _with_ack(message: bytes) -> bytes:
    return HEADER.pack(*_asking(message)) + message[HEADER.size :]


def _bare_of(answers: Sequence[Answer]) -> Iterator[elements.Bare]:
    for _, _, body in answers:
        yield from elements.bare(body)


def _ruled(row: Chain, rules: Sequence[Rule]) -> Chain:
    return Chain(
        family=row.family,
        table=row.table,
        name=row.name,
        hook=row.hook,
        rules=tuple(rules),
    )
