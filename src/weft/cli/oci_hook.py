"""`weft oci-hook`: what makes runc, crun, and podman without CNI call weft.

The hook itself is the launcher (native/launcher/hook.c): an interpreter would cost every container
more than its network. Here people get the configuration that names it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from weft.cli.columns import plain
from weft.cli.output import echo
from weft.cni import oci
from weft.model.errors import Invalid, NotFound
from weft.wire.cni.environment import MAX_IFNAME, NAME_RULE, is_name

app = typer.Typer(
    help="""Print what makes runc, crun and other OCI runtimes call weft.

    They execute the launcher as a hook, with the word oci-hook before its options.

    \b
    Examples:
      weft oci-hook config config.json    the hooks into a bundle's file
      weft oci-hook hooks-d > /etc/containers/oci/hooks.d/weft.json    for podman and CRI-O
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Network = Annotated[
    str,
    typer.Option(
        "--network", metavar="NAME", help="The network, as its file in /etc/cni/net.d names it."
    ),
]
Conf = Annotated[
    str,
    typer.Option(
        "--conf",
        metavar="FILE",
        help="The network's file, where it is not in /etc/cni/net.d.",
        show_default=False,
    ),
]
Ifname = Annotated[
    str, typer.Option("--ifname", metavar="NAME", help="The interface in the container.")
]
Launcher = Annotated[
    str,
    typer.Option(
        "--launcher",
        metavar="FILE",
        help="The program to execute. By default the launcher that `weft install` placed.",
        show_default=False,
    ),
]


@app.command()
def config(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="A container's config.json, into which the hooks are written.",
            show_default=False,
        ),
    ] = None,
    network: Network = oci.NETWORK,
    conf: Conf = "",
    ifname: Ifname = oci.IFNAME,
    launcher: Launcher = "",
) -> None:
    """Print the hooks for a container's config.json, or write them into it.

    The container gets an interface before it starts, and gives everything back when it is deleted.
    Annotations of the container say what it wants: weft.dev/ips, weft.dev/mac, weft.dev/ports,
    weft.dev/labels, kubernetes.io/ingress-bandwidth and egress-bandwidth. It needs a network
    namespace of its own. docs/oci-hooks.md has a whole example.

    \b
    Examples:
      weft oci-hook config                        print them
      weft oci-hook config config.json            write them into this bundle's file
      weft oci-hook config --network blue --ifname eth1 config.json    one more interface
    """
    hook = _hook(network, conf, ifname, launcher)
    if file is None:
        echo(json.dumps(hook.of_container(), indent=2))
        return
    changed = oci.write_into(Path(file).absolute(), hook)
    echo(plain(f"{file}: {'has the hooks now' if changed else 'has had the hooks already'}"))


@app.command("hooks-d")
def hooks_d(
    network: Network = oci.NETWORK,
    conf: Conf = "",
    ifname: Ifname = oci.IFNAME,
    launcher: Launcher = "",
) -> None:
    """Print a file for the directory of hooks that podman and CRI-O read.

    Containers get the interface whose annotation weft.dev/network is the network's name, and which
    have a network namespace that nobody else fills: with podman `--network none`.

    \b
    Examples:
      weft oci-hook hooks-d > /etc/containers/oci/hooks.d/weft.json
      weft oci-hook hooks-d --network blue
    """
    hook = _hook(network, conf, ifname, launcher)
    echo(json.dumps(hook.of_directory(), indent=2))


def _hook(network: str, conf: str, ifname: str, launcher: str) -> oci.Hook:
    if not is_name(network):
        raise _invalid("--network", f"{network} {NAME_RULE}")
    if not 0 < len(ifname.encode()) <= MAX_IFNAME or "/" in ifname:
        raise _invalid("--ifname", f"{ifname} is no interface's name of at most {MAX_IFNAME} bytes")
    for option, path in (("--conf", conf), ("--launcher", launcher)):
        if path and not path.startswith("/"):
            raise _invalid(option, f"{path} is no absolute path")
        if path and not Path(path).is_file():
            raise NotFound(f"{option}: there is no file {path}")
    return oci.Hook(
        launcher=launcher or oci.find_launcher(), network=network, conf=conf, ifname=ifname
    )


def _invalid(option: str, why: str) -> Invalid:
    return Invalid(f"{option}: {why}", field=option, reason="invalid-argument")
