"""A Ray cluster on one machine, whose nodes can be killed and cut off.

Every node has a network, a /tmp/ray and a /dev/shm of its own; a bridge joins them. All of it lives
in namespaces that the program is started in (`ISOLATED`), and ends with it.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

FILES = "mkdir -p /tmp/ray && mount -t tmpfs ray /tmp/ray && mount -t tmpfs shm /dev/shm"
# Starts a program as root of namespaces of its own, with process number 1 and no network; all
# that it starts ends with it.
ISOLATED = [
    *("unshare", "--map-root-user", "--net", "--mount", "--pid", "--mount-proc"),
    *("--fork", "--kill-child", "sh", "-c", f'{FILES} && exec "$@"', "sh"),
]
HEAD, PORT = "10.9.0.1", 6379
HERE = Path(__file__).parent
# A node whose processes are gone is dead after 2.5 seconds, one that does not answer after 12.5.
# Workers find the tests' modules.
ENVIRONMENT = {
    "PYTHONPATH": f"{HERE.parent}:{HERE}",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # whether or not the user has a token
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def refusal() -> str | None:
    """Why this machine cannot have such namespaces; None if it can."""
    command = [*ISOLATED, "ip", "link", "add", "bridge", "type", "bridge"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr.strip() or "unshare failed" if tried.returncode else None


def start_ray(*options: str, within: int | None = None) -> subprocess.Popen:
    """`ray start`, in the namespaces of a process."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    command += ["--object-store-memory=80000000", "--disable-usage-stats", *options]
    if within is not None:
        command = ["nsenter", f"--target={within}", "--net", "--mount", *command]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, **quiet, env=os.environ | ENVIRONMENT)


def break_connections() -> None:
    """Breaks all that the head has with other nodes, of which none is dead."""
    command = ["ss", "--kill", "dst", "10.9.0.0/24"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Node:
    """A node besides the head; `number` is the last part of its address."""

    def __init__(self, number: int, cpus: int = 1):
        self.number = number
        self.mending: threading.Timer | None = None
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", f"{FILES} && exec sleep infinity"]
        )
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        self.namespace = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        inside = f"nsenter --target={self.holder.pid} --net"
        shell(
            f"ip link add node{number} type veth peer name eth0 netns {self.holder.pid} && "
            f"ip link set node{number} master bridge up && {inside} ip link set lo up && "
            f"{inside} ip address add 10.9.0.{number}/24 dev eth0 && {inside} ip link set eth0 up"
        )
        while Path(f"/proc/{self.holder.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.01)  # until its files are mounted
        self.ray = start_ray(
            f"--address={HEAD}:{PORT}",
            f"--node-ip-address=10.9.0.{number}",
            f"--num-cpus={cpus}",
            "--num-gpus=1",  # Ray believes it
            within=self.holder.pid,
        )

    def processes(self) -> list[psutil.Process]:
        """All its processes, the one that holds the namespaces left out."""
        found = [p for p in living() if p.pid != self.holder.pid]
        return [p for p in found if network(p) == self.namespace]

    def workers(self) -> list[psutil.Process]:
        """Its processes that train."""
        return [p for p in self.processes() if is_worker(p)]

    def kill(self) -> None:
        """Kills all processes at once, as when the machine loses its power."""
        if self.mending:
            self.mending.cancel()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.holder.kill()
        self.holder.wait()
        self.ray.wait()

    def kill_raylet(self) -> None:
        """Kills Ray's own process of the node; its workers then end themselves."""
        for process in self.processes():
            if process.name() == "raylet":
                process.kill()

    def cut(self, seconds: float) -> None:
        """Takes its cable out, and puts it back after so many seconds."""
        shell(f"ip link set node{self.number} down")
        mend = f"ip link set node{self.number} up"
        self.mending = threading.Timer(seconds, lambda: shell(mend))
        self.mending.start()


class Cluster:
    """A head without workers, on which the driver runs, and nodes."""

    def __init__(self, nodes: int):
        shell("ip link set lo up && ip link add bridge type bridge")
        shell(f"ip address add {HEAD}/24 dev bridge && ip link set bridge up")
        self.head = start_ray(
            "--head",
            f"--port={PORT}",
            f"--node-ip-address={HEAD}",
            "--num-cpus=0",
            "--include-dashboard=false",
        )
        self.nodes: list[Node] = []  # those that are whole
        self.all: list[Node] = []
        self.numbers = iter(range(2, 255))
        for _ in range(nodes):
            self.add()

    def add(self) -> Node:
        """A further node, which joins in some seconds."""
        self.all.append(Node(next(self.numbers)))
        self.nodes.append(self.all[-1])
        return self.all[-1]

    def end(self) -> None:
        """Ends all nodes."""
        for node in self.all:
            node.kill()
        self.head.terminate()
        self.head.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes that train, on all nodes."""
        return [process for process in living() if is_worker(process)]


def living() -> list[psutil.Process]:
    """All processes, those left out that are dead and that nobody has waited for."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def network(process: psutil.Process) -> str | None:
    try:
        return os.readlink(f"/proc/{process.pid}/ns/net")
    except OSError:  # it has ended
        return None


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::Worker")
    except psutil.Error:
        return False
