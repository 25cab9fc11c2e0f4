"""Puts the compiled launcher into the wheel, as package data `weft/cni/launcher`.

A hook of hatchling. A wheel gets a freshly compiled launcher and the tag of its processor: static,
it needs no C library, so one wheel serves glibc and musl distributions. An editable install
compiles into the source tree, where git ignores it. WEFT_CC: another compiler, see compile.py.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _compiling(root: str) -> ModuleType:
    """native/compile.py, which is no package of the wheel's."""
    spec = importlib.util.spec_from_file_location(
        "weft_native_compile", Path(root, "native", "compile.py")
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError("native/compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LauncherHook(BuildHookInterface):  # type: ignore[type-arg]  # generic over the builder's config
    """Called by hatchling around each build."""

    PLUGIN_NAME = "custom"
    _work: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version` is "standard" or "editable"."""
        if self.target_name != "wheel":
            return
        native = _compiling(self.root)
        if version == "editable":
            native.compile_launcher()
            return
        self._work = tempfile.mkdtemp(prefix="weft-launcher-")
        made = native.compile_launcher(Path(self._work, "launcher"))
        processor = native.machine(native.find_compiler())
        build_data["pure_python"] = False
        build_data["tag"] = (
            f"py3-none-manylinux_2_17_{processor}.manylinux2014_{processor}.musllinux_1_1_{processor}"
        )
        build_data["force_include"][str(made)] = "weft/cni/launcher"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After the build."""
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
