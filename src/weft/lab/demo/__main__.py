"""`python -m weft.lab.demo up|down [--force]`, what ./dev hands over to once Python is there."""

from __future__ import annotations

import argparse
import os
import sys

from weft.lab.demo.down import down
from weft.lab.demo.up import up
from weft.model.errors import WeftError


def main() -> int:
    """Exit status 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="./dev")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up")
    verbs.add_parser("down").add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("./dev: this needs root", file=sys.stderr)
        return 1
    try:
        if arguments.verb == "up":
            up()
        else:
            down(arguments.force)
    except WeftError as error:
        print(f"./dev: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:  # a full or read-only file system, say: a sentence, not a stack
        print(f"./dev: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
