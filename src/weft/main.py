"""The one program: `weft agent` and the command line.

`weft agent` goes straight to the agent, without importing the command line: typer and its
friends would stay in the resident process for nothing. Everything that may go wrong ends here,
as one line and a hint; a traceback is shown only with WEFT_DEBUG=1.
Exit status: 0, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["agent"]:
            from weft.agent.service import main as agent

            return agent(arguments[1:])
        from weft.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader (`| head`) has what it wanted; nothing may be flushed to it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last door: a person gets a sentence, not a stack
        if os.environ.get("WEFT_DEBUG") == "1":
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from weft.model.errors import Invalid, WeftError

    if not isinstance(error, WeftError):
        print(
            f"error: weft failed unexpectedly: {type(error).__name__}: {error}\n"
            "hint: WEFT_DEBUG=1 shows where; please report it",
            file=sys.stderr,
        )
        return 1
    print(f"error: {error.message}", file=sys.stderr)
    if error.details:
        print(error.details, file=sys.stderr)
    if isinstance(error, Invalid) and error.reason == "invalid-argument":
        print("hint: `weft COMMAND --help` has examples", file=sys.stderr)
        return 2
    print(f"hint: weft explain {error.reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
