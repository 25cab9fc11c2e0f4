"""Compiles the C launcher. Standard library only: ./dev, the wheel's build hook and tests share it.

    python3 native/compile.py [-o FILE] [--run-dir DIR] [--sanitize | --driver]

The result is static, so that one file runs on every Linux distribution. With musl-gcc (Debian:
musl-tools) a whole call without agent takes 0.38 ms against 0.93 of a static glibc program; where
that is not installed, or WEFT_CC names another compiler (a cross compiler, say), that one is taken.
Not position-independent: relocating itself would cost another 0.2 ms of every call, and what it
parses comes from root's runtime, with the stack protected and no heap.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "launcher"
OUTPUT = HERE.parent / "src" / "weft" / "cni" / "launcher"
RELEASE = HERE.parent / "src" / "weft" / "__init__.py"

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wvla", "-Wstrict-prototypes"]
HARDENED = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
LINKED = ["-static", "-s", "-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,-z,now"]
SANITIZED = ["-Werror", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def find_compiler() -> list[str]:
    """The compiler's command. Raises SystemExit with what to install where there is none."""
    chosen = os.environ.get("WEFT_CC")
    if chosen:
        return chosen.split()
    for name in ("musl-gcc", "gcc", "cc"):
        if shutil.which(name):
            return [name]
    raise SystemExit("no C compiler: install gcc and libc6-dev (and musl-tools), or set WEFT_CC")


def ask(compiler: list[str], option: str) -> str:
    """What the compiler answers to an option that prints a fact."""
    done = subprocess.run([*compiler, option], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine(compiler: list[str]) -> str:
    """The processor it compiles for, as the platform tags of wheels name it."""
    return ask(compiler, "-dumpmachine").split("-")[0]


def kernel_headers(compiler: list[str]) -> list[str]:
    """musl-gcc looks into musl's own directory only; the kernel's headers lie beside glibc's.
    Behind all others, so that no header of glibc's is taken in place of one of musl's."""
    if "musl" not in Path(compiler[0]).name:
        return []
    places = [Path("/usr/include"), *Path("/usr/include").glob(f"{machine(compiler)}-linux-gnu")]
    return [option for place in places for option in ("-idirafter", str(place))]


def version() -> str:
    """The release's version, as the package has it."""
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"$', RELEASE.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"no version in {RELEASE}")
    return found[1]


def sources(*, driver: bool) -> list[str]:
    """The C files of the launcher, or of the driver that feeds the scanner many texts."""
    if driver:
        return [str(SOURCES / name) for name in ("driver/scan.c", "scan.c", "identity.c")]
    return sorted(str(path) for path in SOURCES.glob("*.c"))


def compile_launcher(
    output: Path = OUTPUT,
    *,
    run_dir: str | None = None,
    sanitize: bool = False,
    driver: bool = False,
    defines: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Compiles to `output`, replacing it in one step, and returns it.

    `run_dir`: in place of /run/weft. `sanitize`: with address and undefined-behaviour checks, not
    static, and warnings are errors (for tests: a user's compiler may know more of them).
    `defines`: limits of protocol.h by name, for tests.
    """
    compiler = ["gcc"] if sanitize else find_compiler()
    command = [*compiler, "-std=c11", "-D_GNU_SOURCE", *WARNINGS, *kernel_headers(compiler)]
    command += SANITIZED if sanitize else ["-O2", *HARDENED, *LINKED]
    command += [f"-D{name}={value}" for name, value in defines.items()]
    command += [f'-DWEFT_VERSION="{version()}"']
    command += [f'-DWEFT_RUN_DIR="{run_dir}"'] if run_dir else []
    command += [f"-I{SOURCES}", *sources(driver=driver)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".launcher-", dir=output.parent) as work:
        made = Path(work) / "launcher"
        done = subprocess.run(
            [*command, "-o", str(made)], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"compiling the launcher failed:\n{done.stderr}")
        made.chmod(0o755)
        made.replace(output)
    return output


def main() -> None:
    """Command line."""
    words = argparse.ArgumentParser(description="compile the launcher")
    words.add_argument("-o", "--output", type=Path, default=OUTPUT)
    words.add_argument("--run-dir", help="in place of /run/weft")
    words.add_argument("--sanitize", action="store_true", help="with ASAN and UBSAN, not static")
    words.add_argument("--driver", action="store_true", help="the scanner's test driver")
    given = words.parse_args()
    made = compile_launcher(
        given.output, run_dir=given.run_dir, sanitize=given.sanitize, driver=given.driver
    )
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
