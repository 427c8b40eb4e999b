"""Several hosts on one machine: network namespaces on a bridge, each with its own processes, home, /tmp and sshd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = {"ip": "iproute2", "unshare": "util-linux", "sshd": "openssh-server", "ssh": "openssh-client"}
PROGRAMS |= {"ssh-keygen": "openssh-client", "rsync": "rsync"}
BRIDGE, NETWORK = "labbr0", "10.77.0"
SSH = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
# The first process of a host. It has its own namespaces for mounts, processes and host name.
HOST = """
set -eu
hostname "$1"
mount --make-rprivate /
cd "$2"
mkdir -p root/.ssh tmp
cp key.pub root/.ssh/authorized_keys
for path in $4; do mkdir -p "./$path" && mount --bind "$path" "./$path"; done
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount --rbind ./tmp /tmp
mount --rbind ./root /root
exec "$5" -D -e -f /dev/null -o ListenAddress="$3" -o HostKey=/root/hostkey -o PermitRootLogin=prohibit-password \
    -o StrictModes=no -o UsePAM=no -o PidFile=none -o MaxSessions=100 -o MaxStartups=100
"""


@dataclass
class Host:
    """A host that is running: its address, its folder on this machine, and the key for its ssh."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]
    key: Path

    def run(self, command: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a command in a login shell on the host, over ssh."""
        return subprocess.run(self.ssh(command), capture_output=True, text=True, timeout=timeout)

    def start(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(self.ssh(command), stdout=file, stderr=subprocess.STDOUT)

    def ssh(self, command: str) -> list[str]:
        quoted = command.replace("'", "'\\''")
        return ["ssh", *SSH, "-i", str(self.key), f"root@{self.address}", f"bash --login -c '{quoted}'"]

    def switch_off(self) -> None:
        """Switch the host off without warning: its link goes down first, so it cannot tell anyone."""
        ip("link", "set", f"v{self.name}", "down")
        self.process.send_signal(signal.SIGKILL)  # unshare ends all processes of the host with it
        self.process.wait()


def ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def why_not() -> str:
    """Why this machine cannot run the lab; empty if it can."""
    if sys.platform != "linux":
        return "the hosts are Linux namespaces, and this is not Linux"
    if os.geteuid() != 0:
        return "only root can make the hosts"
    missing = {package for program, package in PROGRAMS.items() if find(program) is None}
    return f"missing Debian packages: {', '.join(sorted(missing))}" if missing else ""


def find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


@contextmanager
def lab(names: list[str], folder: Path) -> Iterator[dict[str, Host]]:
    """The running hosts by name.

    Each has the key `folder/key` in ~/.ssh and accepts it. Skips the test where that is impossible.
    """
    reason = why_not()
    if reason:
        pytest.skip(reason)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    hosts: dict[str, Host] = {}
    try:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for number, name in enumerate(names):
                hosts[name] = add_host(name, f"{NETWORK}.{10 + number}", folder)
            for host in hosts.values():
                wait_for_sshd(host)
        except OSError as error:
            pytest.skip(f"network namespaces do not work here: {error}")
        yield hosts
    finally:
        for host in hosts.values():
            host.process.kill()
            host.process.wait()
        for name in names:
            ip("netns", "delete", name, check=False)
            ip("link", "delete", f"v{name}", check=False)
        ip("link", "delete", BRIDGE, check=False)


def add_host(name: str, address: str, folder: Path) -> Host:
    ip("netns", "add", name)
    ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", f"v{name}", "master", BRIDGE, "up")
    ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    ip("-n", name, "link", "set", "eth0", "up")
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.1")  # Ray finds its own address by the default route
    home = folder / name / "root"
    (home / ".ssh").mkdir(parents=True)
    shutil.copy(folder / "key.pub", folder / name)
    shutil.copy(folder / "key", home / ".ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "hostkey"], check=True)
    (home / "venv").symlink_to(sys.prefix)  # in place of what the cluster file installs
    (home / ".profile").write_text(
        "export PATH=$HOME/venv/bin:$PATH PYTHONPATH=$HOME/project OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0\n"
    )
    hidden = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix)}
    through = " ".join(str(p) for p in hidden if p.is_relative_to("/root") or p.is_relative_to("/tmp"))
    program = ["ip", "netns", "exec", name, "unshare", "-m", "-p", "-u", "-f", "--mount-proc", "--kill-child"]
    program += ["bash", "-c", HOST, "host", name, str(folder / name), address, through, str(find("sshd"))]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(program, stdout=log, stderr=log)
    return Host(name, address, folder / name, process, folder / "key")


def wait_for_sshd(host: Host, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while host.run("true").returncode:
        if host.process.poll() is not None or time.monotonic() > until:
            raise OSError(f"{host.name}: {(host.folder.parent / f'{host.name}.log').read_text()[-500:]}")
        time.sleep(0.2)
