"""The messages of etcd's v3 protocol that a store needs, as classes of the protobuf library.

Field numbers are those of etcd's `rpc.proto` and `kv.proto` (API of etcd 3.3 to 3.6). The classes
are made when this is imported, from the table below: generated modules would tie this tree to one
release of the library. What is not in the table is skipped when read, as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "weft.etcd"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint64": _FIELD.TYPE_UINT64,
}

# message -> field -> (number, type); "*": repeated; "|": in the message's one choice. Enumerations
# are int32: on the wire they are the same.
TABLE: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Header": {
        "cluster_id": (1, "uint64"),
        "member_id": (2, "uint64"),
        "revision": (3, "int64"),
        "raft_term": (4, "uint64"),
    },
    "KeyValue": {
        "key": (1, "bytes"),
        "create_revision": (2, "int64"),
        "mod_revision": (3, "int64"),
        "version": (4, "int64"),
        "value": (5, "bytes"),
        "lease": (6, "int64"),
    },
    "Event": {"type": (1, "int32"), "kv": (2, "KeyValue")},
    "RangeRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "limit": (3, "int64"),
        "revision": (4, "int64"),
        "keys_only": (8, "bool"),
    },
    "RangeResponse": {
        "header": (1, "Header"),
        "kvs": (2, "*KeyValue"),
        "more": (3, "bool"),
        "count": (4, "int64"),
    },
    "PutRequest": {"key": (1, "bytes"), "value": (2, "bytes"), "lease": (3, "int64")},
    "DeleteRangeRequest": {"key": (1, "bytes"), "range_end": (2, "bytes")},
    "RequestOp": {
        "request_range": (1, "|RangeRequest"),
        "request_put": (2, "|PutRequest"),
        "request_delete_range": (3, "|DeleteRangeRequest"),
    },
    "ResponseOp": {"response_range": (1, "|RangeResponse")},
    "Compare": {
        "result": (1, "int32"),
        "target": (2, "int32"),
        "key": (3, "bytes"),
        "create_revision": (5, "|int64"),
        "mod_revision": (6, "|int64"),
    },
    "TxnRequest": {
        "compare": (1, "*Compare"),
        "success": (2, "*RequestOp"),
        "failure": (3, "*RequestOp"),
    },
    "TxnResponse": {
        "header": (1, "Header"),
        "succeeded": (2, "bool"),
        "responses": (3, "*ResponseOp"),
    },
    "WatchCreateRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "start_revision": (3, "int64"),
        "progress_notify": (4, "bool"),
    },
    "WatchRequest": {"create_request": (1, "|WatchCreateRequest")},
    "WatchResponse": {
        "header": (1, "Header"),
        "watch_id": (2, "int64"),
        "created": (3, "bool"),
        "canceled": (4, "bool"),
        "compact_revision": (5, "int64"),
        "cancel_reason": (6, "string"),
        "events": (11, "*Event"),
    },
    "LeaseGrantRequest": {"TTL": (1, "int64"), "ID": (2, "int64")},
    "LeaseGrantResponse": {
        "header": (1, "Header"),
        "ID": (2, "int64"),
        "TTL": (3, "int64"),
        "error": (4, "string"),
    },
    "LeaseKeepAliveRequest": {"ID": (1, "int64")},
    "LeaseKeepAliveResponse": {"header": (1, "Header"), "ID": (2, "int64"), "TTL": (3, "int64")},
    "AuthenticateRequest": {"name": (1, "string"), "password": (2, "string")},
    "AuthenticateResponse": {"header": (1, "Header"), "token": (2, "string")},
}

EQUAL = 0  # Compare.result
CREATED, MODIFIED = 1, 2  # Compare.target: create_revision, mod_revision
DELETED = 1  # Event.type


def _field(name: str, number: int, kind: str) -> Any:
    field = _FIELD(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind[0] == "*":
        field.label = _FIELD.LABEL_REPEATED
    elif kind[0] == "|":
        field.oneof_index = 0
    kind = kind.lstrip("*|")
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return field


def _build(names: Sequence[str]) -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="weft/etcd.proto", package=PACKAGE, syntax="proto3"
    )
    for name in names:
        message = file.message_type.add(name=name)
        fields = TABLE[name]
        if any(kind[0] == "|" for _, kind in fields.values()):
            message.oneof_decl.add(name="choice")
        for field, (number, kind) in fields.items():
            message.field.append(_field(field, number, kind))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in names
    }


MESSAGES: Mapping[str, Any] = _build(tuple(TABLE))
"""Message -> class. `MESSAGES["PutRequest"](key=b"/a", value=b"1")`."""

METHODS: Mapping[str, tuple[str, str, str]] = {
    "range": ("/etcdserverpb.KV/Range", "RangeRequest", "RangeResponse"),
    "commit": ("/etcdserverpb.KV/Txn", "TxnRequest", "TxnResponse"),
    "watch": ("/etcdserverpb.Watch/Watch", "WatchRequest", "WatchResponse"),
    "grant": ("/etcdserverpb.Lease/LeaseGrant", "LeaseGrantRequest", "LeaseGrantResponse"),
    "keep": (
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "LeaseKeepAliveRequest",
        "LeaseKeepAliveResponse",
    ),
    "authenticate": (
        "/etcdserverpb.Auth/Authenticate",
        "AuthenticateRequest",
        "AuthenticateResponse",
    ),
}
"""Call -> path, message asked, message answered."""
