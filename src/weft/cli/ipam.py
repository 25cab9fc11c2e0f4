"""`weft ipam`: who has which address, whether that is so, and giving one back."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.cli.columns import count_of, plain, span, table
from weft.cli.completing import complete_address
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, echo
from weft.model.addresses import parse_address
from weft.wire.api import IpamShow, Nothing, ReleaseParams
from weft.wire.status import PoolUse

app = typer.Typer(
    help="Show, check and release addresses.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command()
def show(
    ctx: typer.Context,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS]", help="Only this address.", autocompletion=complete_address
        ),
    ] = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="Blocks that this node holds.")] = False,
    addresses: Annotated[
        bool, typer.Option("--addresses", help="Every address that is not free.")
    ] = False,
    output: Report = None,
) -> None:
    """Show how pools, blocks and addresses are used on this node.

    \b
    Examples:
      weft ipam show
      weft ipam show --blocks
      weft ipam show 10.244.0.5           who has this address
      weft ipam show -o json
    """
    use = client_of(ctx).call("ipam.show", Nothing())
    if address is not None:
        echo(_who_has(str(parse_address(address, "ADDRESS")), use))
    elif output is not None:
        echo(as_text(use, output))
    elif blocks:
        rows = [
            [each.cidr, each.pool, str(each.used), str(each.cooling), str(each.free)]
            for each in use.blocks
        ]
        echo(table(["BLOCK", "POOL", "USED", "COOLING", "FREE"], rows))
    elif addresses:
        rows = [[each.address, each.pool, each.state, each.owner] for each in use.addresses]
        echo(table(["ADDRESS", "POOL", "STATE", "OWNER"], rows))
    else:
        echo(pools_table(use.pools))


def pools_table(pools: tuple[PoolUse, ...]) -> str:
    """One line a pool."""
    rows = [
        [
            each.name,
            each.cidr,
            count_of(each.cidr, each.size),
            str(each.used),
            str(each.cooling),
            count_of(each.cidr, each.free),
            str(each.blocks),
            str(each.disabled).lower(),
        ]
        for each in pools
    ]
    headings = ["NAME", "CIDR", "SIZE", "USED", "COOLING", "FREE", "BLOCKS", "DISABLED"]
    return table(headings, rows)


def _who_has(address: str, use: IpamShow) -> str:
    for each in use.addresses:
        if each.address == address:
            owner = f" by {plain(each.owner)}" if each.owner else ""
            return f"{address} is {each.state}{owner}, in pool {each.pool}"
    return f"{address} is not in use on this node"


@app.command()
def check(ctx: typer.Context, output: Report = None) -> None:
    """Compare what was given out with the journal and the kernel.

    Exit status 1 when they differ.

    \b
    Examples:
      weft ipam check
      weft ipam check -o json
    """
    audit = client_of(ctx).call("ipam.check", Nothing())
    if output is not None:
        echo(as_text(audit, output))
    else:
        rows = [[each.what, each.address, each.text, each.mend] for each in audit.problems]
        if rows:
            echo(table(["PROBLEM", "ADDRESS", "WHAT IS KNOWN", "MEND"], rows))
        count = len(audit.problems) or "no"
        echo(
            f"{audit.addresses} addresses, {audit.attachments} attachments, {count} "
            f"problem{'' if count == 1 else 's'}"
        )
    if audit.problems:
        raise typer.Exit(1)


@app.command()
def release(
    ctx: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="The address to give back.", autocompletion=complete_address
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also an address that an attachment still has.")
    ] = False,
) -> None:
    """Give an address back that leaked, e.g. one that `weft ipam check` found.

    An address that a container still uses is refused unless forced: two containers with one
    address disturb each other.

    \b
    Examples:
      weft ipam release 10.244.0.5
    """
    params = ReleaseParams(address=str(parse_address(address, "ADDRESS")), force=force)
    done = client_of(ctx).call("ipam.release", params)
    owner = f", was held by {plain(done.owner)}" if done.owner else ""
    cooling = f"; it may be given out again in {span(done.cooling)}" if done.cooling else ""
    echo(f"{done.address} released to pool {done.pool}{owner}{cooling}")
