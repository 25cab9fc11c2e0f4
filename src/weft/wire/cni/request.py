"""One CNI request of any version: environment and standard input into a checked `Request`.

Everything that can be refused without looking at the machine is refused here, so an agent that
holds a Request has only its own state and the kernel left to ask. Order: environment, JSON, name,
version, verb, then what the verb needs. DEL and GC are held to less, see `config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from weft.model.attachment import AttachmentKey
from weft.model.errors import Invalid
from weft.wire.cni import annotated, config, wishes
from weft.wire.cni.config import Conf, PluginDocument, ValidAttachments
from weft.wire.cni.document import JsonObject, convert, project, shape, undecodable
from weft.wire.cni.environment import Args, Environment, check_key_fits, read_environment
from weft.wire.cni.result import MAX_ENTRIES, Result, Unreadable
from weft.wire.cni.versions import NEWEST, VERSIONS, check_verb, spec_version
from weft.wire.cni.versions.form import Command
from weft.wire.cni.wishes import Wishes


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime asks for. Fields that a verb has no use for keep their defaults.

    `prev_result`: None absent, `Result()` empty, Unreadable unknown (DEL only).
    `valid_attachments`: None unless GC; an empty set removes every attachment of the network.
    """

    command: Command
    spec_version: str
    network: str = ""
    container_id: str = ""
    ifname: str = ""
    netns: str | None = None
    args: Args = ()
    path: str = ""
    conf: Conf = Conf()
    runtime_config: Mapping[str, object] = {}
    args_cni: Mapping[str, object] = {}
    prev_result: Result | Unreadable | None = None
    adopts: bool = False  # `prev_result` has the interface already: another plugin made it
    valid_attachments: ValidAttachments | None = None
    wishes: Wishes = Wishes()
    hooked: bool = False  # an OCI runtime's hook asks, which may never come back to DEL

    @property
    def key(self) -> AttachmentKey:
        """The attachment that ADD, DEL and CHECK are about."""
        return AttachmentKey(self.network, self.container_id, self.ifname)


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request:
    """A request from what a runtime passed to the launcher; raises Invalid and nothing else."""
    environment = read_environment(env)
    if environment.command is Command.VERSION:
        return Request(command=Command.VERSION, spec_version=_version_asked(stdin))
    obj = config.read_document(stdin)
    head = config.read_head(obj)
    config.check_network(head.name)
    if environment.command is Command.DEL and head.cni_version not in ("", *VERSIONS):
        # whoever asks to delete gets it done, whatever else he speaks; DEL answers nothing
        head = msgspec.structs.replace(head, cni_version=NEWEST)
    spec = spec_version(head.cni_version)
    check_verb(spec, environment.command)
    match environment.command:
        case Command.ADD | Command.CHECK:
            return _attach(environment, obj, head.name, spec.name)
        case Command.DEL:
            return Request(
                command=Command.DEL,
                spec_version=spec.name,
                network=head.name,
                container_id=environment.container_id,
                ifname=environment.ifname,
                netns=environment.netns,
                args=environment.args,
                path=environment.path,
                prev_result=_prev_result_of_del(obj, spec.name),
            )
        case Command.GC:
            return Request(
                command=Command.GC,
                spec_version=spec.name,
                network=head.name,
                path=environment.path,
                valid_attachments=config.read_valid_attachments(obj),
            )
    _, conf = config.read_plugin(obj)
    return Request(
        command=environment.command,
        spec_version=spec.name,
        network=head.name,
        path=environment.path,
        conf=conf,
    )


def _attach(environment: Environment, obj: JsonObject, network: str, version: str) -> Request:
    check_key_fits(network, environment.container_id, environment.ifname)
    document, conf = config.read_plugin(obj)
    args_cni = config.args_cni(document)
    said = annotated.runtime_config(document.runtime_config, network)
    runtime_config = document.runtime_config if said is None else said
    previous = document.prev_result
    if previous is None and environment.command is Command.CHECK:
        raise config.invalid("required prevResult missing", "prevResult")
    result = None if previous is None else decode_result(previous, version)
    adopts = result is not None and result.number_of(environment.ifname) is not None
    if adopts and environment.command is Command.ADD:  # CHECK is told of our own, too
        config.check_adopted(conf, environment.ifname)
    elif not adopts:
        config.check_made(document)
    return Request(
        command=environment.command,
        spec_version=version,
        network=network,
        container_id=environment.container_id,
        ifname=environment.ifname,
        netns=environment.netns,
        args=environment.args,
        path=environment.path,
        conf=conf,
        runtime_config=runtime_config,
        args_cni=args_cni,
        prev_result=result,
        adopts=adopts,
        wishes=_wishes(runtime_config, document, environment.args, conf, said is not None),
        hooked=said is not None,
    )


def _wishes(
    runtime_config: Mapping[str, object],
    document: PluginDocument,
    args: Args,
    conf: Conf,
    hooked: bool,
) -> Wishes:
    try:
        return wishes.resolve(
            runtime_config,
            config.args_cni(document),
            args,
            conf,
            document.args,
            document.metadata,
        )
    except Invalid as error:
        raise annotated.renamed(error) if hooked else error from None


def _prev_result_of_del(obj: JsonObject, version: str) -> Result | Unreadable | None:
    found = config.read_prev_result(obj)
    if found is None:
        return None
    try:
        return decode_result(found, version)
    except Invalid as error:
        return Unreadable(why=error.message)


def _version_asked(stdin: bytes) -> str:
    """VERSION works with anything on standard input, an answer names a version in any case."""
    try:
        given = config.read_head(config.read_document(stdin)).cni_version
    except Invalid:
        return NEWEST
    return given if given in VERSIONS else NEWEST


class _Versioned(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The one key of a result that says how to read the others."""

    cni_version: str = ""


_VERSION_SHAPE = shape("cniVersion")


def decode_result(obj: object, version: str) -> Result:
    """A result object; `version` counts where it names none itself (libcni did so, cni#895)."""
    if not isinstance(obj, dict):
        raise undecodable("prevResult: expected an object", field="prevResult")
    if any(isinstance(each, list) and len(each) > MAX_ENTRIES for each in obj.values()):
        raise undecodable(f"prevResult: more than {MAX_ENTRIES} entries", field="prevResult")
    own = convert(project(obj, _VERSION_SHAPE), _Versioned, "prevResult").cni_version
    return spec_version(own or version, "prevResult.cniVersion").decode(obj)


def encode_result(result: Result, version: str) -> bytes:
    """The exact object that a caller of this version expects, indented as the Go libraries do.

    Raises Invalid `incompatible-version` for a result without address before 0.3.0.
    """
    spec = spec_version(version)
    return _indented({"cniVersion": spec.name, **spec.encode(result)})


def encode_version(asked: str) -> bytes:
    """The answer to VERSION."""
    return _indented({"cniVersion": asked, "supportedVersions": list(VERSIONS)})


def _indented(obj: JsonObject) -> bytes:
    return msgspec.json.format(msgspec.json.encode(obj), indent=4)
