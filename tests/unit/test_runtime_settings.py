"""What is read from runtimes' settings, and which configuration each of them takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli.machine import Machine
from weft.cni import placing, runtimes
from weft.cni.install import DEFAULT_CONFLIST
from weft.cni.runtimes.choice import Choice
from weft.cni.runtimes.found import Runtime

OURS = DEFAULT_CONFLIST.decode()
BRIDGE = json.dumps({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})
NETWORKS = "etc/cni/net.d"
CRI1, CRI2, CRI3 = "cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"


class Tree(Machine):
    """A machine in a directory."""

    def write(self, path: str, text: str = "", mode: int = 0o644) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def only(self) -> Runtime:
        (found,) = runtimes.find(self)
        return found

    def takes(self) -> Choice:
        ((judged),) = placing.judge(self, runtimes.find(self))
        return judged.choice


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def cni(section: str, *lines: str, version: int = 2) -> str:
    head = f"version = {version}\n" if version > 1 else ""
    return f'{head}[plugins."{section}".cni]\n' + "\n".join(lines) + "\n"


def test_machine_without_runtimes_has_none(tree: Tree) -> None:
    assert runtimes.find(tree) == []


def test_debians_containerd_looks_where_its_package_says(tree: Tree) -> None:
    lines = ('bin_dir = "/usr/lib/cni"', 'conf_dir = "/etc/cni/net.d"')
    tree.write("etc/containerd/config.toml", cni(CRI2, *lines))
    found = tree.only()
    assert (found.name, found.plugins, found.networks, found.count) == (
        "containerd",
        ("/usr/lib/cni",),
        "/etc/cni/net.d",
        1,
    )


@pytest.mark.parametrize(("section", "version"), [(CRI1, 1), (CRI2, 2), (CRI3, 3), (CRI3, 4)])
def test_every_version_of_containerds_settings_is_read(
    tree: Tree, section: str, version: int
) -> None:
    lines = ('bin_dir = "/a/bin/"', 'conf_dir = "/a/conf"', "max_conf_num = 2")
    tree.write("etc/containerd/config.toml", cni(section, *lines, version=version))
    found = tree.only()
    assert (found.plugins, found.networks, found.count) == (("/a/bin",), "/a/conf", 2)


def test_containerd_without_settings_looks_in_the_usual_places(tree: Tree) -> None:
    tree.write("usr/bin/containerd")
    found = tree.only()
    assert (found.plugins, found.networks) == (("/opt/cni/bin",), "/etc/cni/net.d")


def test_several_plugin_directories_of_containerd_are_all_searched(tree: Tree) -> None:
    text = cni(CRI3, 'bin_dirs = ["/a", "/b"]', version=3)
    tree.write("etc/containerd/config.toml", text)
    assert tree.only().plugins == ("/a", "/b")


def test_imports_of_version_3_are_merged(tree: Tree) -> None:
    text = 'imports = ["conf.d/*.toml"]\n' + cni(CRI3, 'bin_dir = "/a/bin"', version=3)
    tree.write("etc/containerd/config.toml", text)
    tree.write("etc/containerd/conf.d/1.toml", cni(CRI3, 'conf_dir = "/b"', version=3))
    tree.write("etc/containerd/conf.d/2.toml", cni(CRI3, 'conf_dir = "/c"', version=3))
    tree.write("etc/containerd/conf.d/3.txt", cni(CRI3, 'conf_dir = "/d"', version=3))
    found = tree.only()
    assert (found.plugins, found.networks) == (("/a/bin",), "/c")
    assert [Path(each).name for each in found.settings] == ["config.toml", "1.toml", "2.toml"]


def test_imports_of_version_2_are_told_for_both_containerds(tree: Tree) -> None:
    text = 'imports = ["conf.d/*.toml"]\n' + cni(CRI2, 'bin_dir = "/a/bin"')
    tree.write("etc/containerd/config.toml", text)
    tree.write("etc/containerd/conf.d/1.toml", cni(CRI2, 'conf_dir = "/b"'))
    told = {each.name: (each.plugins, each.networks) for each in runtimes.find(tree)}
    assert told == {
        "containerd 1.x": (("/opt/cni/bin",), "/b"),  # as `containerd config dump` of 1.6.20 says
        "containerd 2.x": (("/a/bin",), "/b"),
    }


def test_imports_in_a_circle_end(tree: Tree) -> None:
    tree.write("etc/containerd/config.toml", 'version = 3\nimports = ["config.toml", "b.toml"]')
    tree.write("etc/containerd/b.toml", 'version = 3\nimports = ["/etc/containerd/config.toml"]')
    assert len(tree.only().settings) == 2


def test_runtime_class_with_a_directory_of_its_own_is_one_more(tree: Tree) -> None:
    text = f'version = 2\n[plugins."{CRI2}".containerd.runtimes.kata]\ncni_conf_dir = "/k"\n'
    tree.write("etc/containerd/config.toml", text)
    told = [(each.name, each.networks) for each in runtimes.find(tree)]
    assert told == [("containerd", "/etc/cni/net.d"), ("containerd, runtime kata", "/k")]


def test_containerd_without_the_plugin_loopback_is_noted(tree: Tree) -> None:
    tree.write("usr/bin/containerd")
    (note,) = tree.only().notes
    assert "no plugin loopback in /opt/cni/bin" in note
    tree.write("opt/cni/bin/loopback")
    assert tree.only().notes == ()


def test_containerds_that_run_with_other_settings_are_found(tree: Tree) -> None:
    for number, words in enumerate(
        (
            "containerd --config /a.toml --log-level info",
            "containerd -c=/b.toml",
            "containerd --config /run/docker/containerd.toml",
            "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml",
            "containerd",
            "containerd -c",
        )
    ):
        tree.write(f"proc/{number}/comm", "containerd\n")
        tree.write(f"proc/{number}/cmdline", "\0".join([*words.split(), ""]))
    tree.write("a.toml", cni(CRI2, 'conf_dir = "/a"'))
    tree.write("b.toml", cni(CRI2, 'conf_dir = "/b"'))
    tree.write("run/docker/containerd.toml", 'disabled_plugins = ["io.containerd.grpc.v1.cri"]')
    told = {each.name: each.networks for each in runtimes.find(tree)}
    assert told == {"containerd with /a.toml": "/a", "containerd with /b.toml": "/b"}


def test_switched_off_cri_is_noted(tree: Tree) -> None:
    tree.write("etc/containerd/config.toml", 'disabled_plugins = ["cri"]')
    (note,) = tree.only().notes
    assert "switched off" in note


@pytest.mark.parametrize(
    "text",
    ["version = ", "version = 'two'", cni(CRI2, "bin_dir = 5"), cni(CRI2, "max_conf_num = '1'"),
     "version = 2\nplugins = 3", "version = 2\nimports = 'x'"],
)  # fmt: skip
def test_settings_that_containerd_cannot_read_are_a_problem(tree: Tree, text: str) -> None:
    tree.write("etc/containerd/config.toml", text)
    assert "/etc/containerd/config.toml" in tree.only().problem


def test_later_files_of_crio_hold(tree: Tree) -> None:
    tree.write("etc/crio/crio.conf", '[crio.network]\nnetwork_dir = "/a"\nplugin_dirs = ["/x"]')
    tree.write("etc/crio/crio.conf.d/10-b", '[crio.network]\nnetwork_dir = "/b/"')
    tree.write("etc/crio/crio.conf.d/05-c.conf", '[crio.network]\ncni_default_network = "net"')
    found = tree.only()
    assert (found.name, found.networks, found.plugins, found.network) == (
        "CRI-O",
        "/b",
        ("/x",),
        "net",
    )


def test_podman_is_a_runtime_only_with_its_cni_backend(tree: Tree) -> None:
    tree.write("usr/bin/podman")
    assert tree.only().plugins[-1] == "/opt/cni/bin"
    tree.write("usr/lib/podman/netavark")
    assert runtimes.find(tree) == []
    tree.write("var/lib/containers/storage/defaultNetworkBackend", "cni")
    assert tree.only().network == "podman"
    text = '[network]\nnetwork_backend = "netavark"'
    tree.write("etc/containers/containers.conf.d/1.conf", text)
    assert runtimes.find(tree) == []


def test_podmans_directories_and_default_are_read(tree: Tree) -> None:
    tree.write("usr/bin/podman")
    lines = ('cni_plugin_dirs = ["/p"]', 'network_config_dir = "/n"', 'default_network = "weft"')
    tree.write("etc/containers/containers.conf", "[network]\n" + "\n".join(lines))
    found = tree.only()
    assert (found.plugins, found.networks, found.network) == (("/p",), "/n", "weft")


def test_k3s_before_its_first_start_is_told_from_its_own_settings(tree: Tree) -> None:
    tree.write("etc/rancher/k3s/config.yaml", "data-dir: /data\n")
    found = tree.only()
    assert found.networks == "/data/agent/etc/cni/net.d"
    assert found.plugins == ("/data/data/cni",)
    tree.write("data/data/current/bin/bridge")  # a release before October 2024
    assert tree.only().plugins == ("/data/data/current/bin",)
    tree.write("data/data/cni/bridge")
    assert tree.only().plugins == ("/data/data/cni",)
    assert "flannel-backend: none" in found.notes[-1]
    tree.write("etc/rancher/k3s/config.yaml.d/1.yaml", "flannel-backend: none\n")
    found = tree.only()
    assert (found.networks, found.plugins) == ("/etc/cni/net.d", ("/opt/cni/bin",))


def test_what_rke2_wrote_for_its_containerd_is_read(tree: Tree) -> None:
    file = "var/lib/rancher/rke2/agent/etc/containerd/config.toml"
    tree.write(file, cni(CRI3, 'bin_dirs = ["/opt/cni/bin"]', 'conf_dir = "/r"', version=3))
    found = tree.only()
    assert (found.name, found.networks) == ("rke2", "/r")


def test_settings_of_k3s_that_are_no_mapping_are_a_problem(tree: Tree) -> None:
    tree.write("etc/rancher/k3s/config.yaml", "- a")
    assert "config.yaml must be a mapping" in tree.only().problem


def test_containerd_takes_the_first_by_name(tree: Tree) -> None:
    tree.write("usr/bin/containerd")
    tree.write(f"{NETWORKS}/10-weft.conflist", OURS)
    tree.write(f"{NETWORKS}/20-other.conf", '{"type": "bridge"}')
    tree.write(f"{NETWORKS}/05-notes.txt", "{")
    assert tree.takes() == Choice(taken=("10-weft.conflist",), ours="10-weft.conflist")
    tree.write(f"{NETWORKS}/05-b.json", '{"type": "bridge"}')
    tree.write(f"{NETWORKS}/06-c.conflist", BRIDGE)
    found = tree.takes()
    assert found.taken == ("05-b.json",)
    assert found.shadows == ("05-b.json", "06-c.conflist")  # each of them would be taken in turn
    assert "05-b.json comes before 10-weft.conflist" in found.why


def test_containerd_with_several_networks_takes_eth0_from_the_first(tree: Tree) -> None:
    tree.write("etc/containerd/config.toml", cni(CRI2, "max_conf_num = 2"))
    tree.write(f"{NETWORKS}/10-weft.conflist", OURS)
    tree.write(f"{NETWORKS}/20-other.conflist", BRIDGE)
    found = tree.takes()
    assert (found.why, found.taken) == ("", ("10-weft.conflist", "20-other.conflist"))
    assert "20-other.conflist" in found.notes[0]
    tree.write(f"{NETWORKS}/20-other.conflist", "{")
    assert "stops there" in tree.takes().why


def test_crio_passes_over_what_it_cannot_use(tree: Tree) -> None:
    tree.write("usr/bin/crio")
    tree.write("opt/cni/bin/weft", mode=0o755)
    tree.write(f"{NETWORKS}/01-broken.conflist", "{")
    tree.write(f"{NETWORKS}/02-absent.conflist", BRIDGE)
    tree.write(f"{NETWORKS}/10-weft.conflist", OURS)
    assert tree.takes().why == ""
    tree.write("opt/cni/bin/bridge", mode=0o755)
    assert tree.takes().shadows == ("02-absent.conflist",)
    (tree.root / "opt/cni/bin/weft").unlink()
    assert "not in /opt/cni/bin" in tree.takes().why


def test_crio_that_is_told_another_network_cannot_be_helped_by_files(tree: Tree) -> None:
    tree.write("etc/crio/crio.conf", '[crio.network]\ncni_default_network = "net"')
    tree.write("opt/cni/bin/weft", mode=0o755)
    tree.write(f"{NETWORKS}/10-weft.conflist", OURS)
    found = tree.takes()
    assert (found.shadows, "cni_default_network is net" in found.why) == ((), True)


def test_podman_calls_by_name_whatever_comes_first(tree: Tree) -> None:
    tree.write("usr/bin/podman")
    tree.write(f"{NETWORKS}/01-other.conflist", BRIDGE)
    tree.write(f"{NETWORKS}/10-weft.conflist", OURS)
    found = tree.takes()
    assert (found.why, found.taken) == ("", ("10-weft.conflist",))
    assert "--network weft" in found.notes[0]
    tree.write(f"{NETWORKS}/02-same.conflist", BRIDGE.replace('"net"', '"weft"'))
    assert tree.takes().shadows == ("02-same.conflist",)
