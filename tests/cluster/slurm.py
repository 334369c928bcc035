"""A real SLURM on this machine for tests: munge, slurmctld and two slurmd, on loopback, without systemd or cgroups.

Debian: apt-get install munge slurm-client slurmctld slurmd. It has to run as root. By hand:

    python tests/cluster/slurm.py start FOLDER [--gpus 2]      # then: sinfo, squeue, snakemake --profile profiles/slurm
    python tests/cluster/slurm.py stop FOLDER

Everything lies in FOLDER but for three links in /etc/slurm: Snakemake's SLURM plugin takes SLURM_CONF away from the
jobs' steps, so the files must be where SLURM looks by itself. Files that others put there are never touched. The GPUs
are counts that the scheduler hands out and names in CUDA_VISIBLE_DEVICES; their device files are further names of
/dev/null.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
SYSTEM = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
NODES = ("node1", "node2")

CONFIGURATION = """\
ClusterName=ltpatest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
EnforcePartLimits=ALL
PropagateResourceLimits=NONE
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=5
OverTimeLimit=0
MinJobAge=600
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=15 State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=15 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


class Unavailable(Exception):
    """Why no SLURM can be started here."""


def missing() -> str:
    """Why no SLURM can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install munge slurm-client slurmctld slurmd)"
    if os.geteuid() != 0:
        return "starting SLURM takes root"
    foreign = [name for name in FILES if _is_foreign(SYSTEM / name)]
    return f"{SYSTEM / foreign[0]}: a SLURM is set up on this machine" if foreign else ""


def _is_foreign(path: Path) -> bool:
    """Whether somebody else's file is there; a link of ours whose SLURM has ended may be replaced."""
    if not path.is_symlink():
        return path.exists()
    folder = path.readlink().parent
    return not folder.name.startswith("ltpa-slurm") or any(_alive(pid) for pid in _pids(folder).values())


def _pids(folder: Path) -> dict[str, int]:
    """Process ids of the daemons that were started in `folder`."""
    found = {}
    for path in sorted(folder.glob("*.pid")):
        with contextlib.suppress(ValueError, OSError):
            found[path.stem] = int(path.read_text())
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [found.getsockname()[1] for found in sockets]


def run(*command: str, timeout: float = 60) -> str:
    """Run a SLURM command and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Cluster:
    """One SLURM in one folder, whose name must begin with `ltpa-slurm`.

    Args:
        folder: for files, logs and state; not there yet, or left by an ended SLURM.
        gpus: GPUs of each node.
        cpus: cores that each node claims to have.
        memory: megabytes that each node claims to have.
        nodes: how many of the two nodes there are.
    """

    def __init__(self, folder: Path, gpus: int = 2, cpus: int = 4, memory: int = 8000, nodes: int = 2) -> None:
        if not folder.name.startswith("ltpa-slurm"):
            raise Unavailable(f"{folder}: the name must begin with ltpa-slurm")
        self.folder = folder.resolve()
        self._nodes = NODES[:nodes]
        self._size = {"gpus": gpus, "cpus": cpus, "memory": memory}

    def start(self) -> None:
        """Start the daemons and wait until both nodes take jobs.

        Raises:
            Unavailable: there is no SLURM here to start, another one is set up, or it does not come up.
        """
        if reason := missing():
            raise Unavailable(reason)
        self.folder.mkdir(parents=True, mode=0o755, exist_ok=True)
        self._write()
        try:
            self._munge()
            self._daemon("slurmctld")
            self._wait("scontrol ping", lambda: "is UP" in run("scontrol", "ping"))
            for node in self._nodes:
                self.start_node(node)
            self._wait("nodes", lambda: run("sinfo", "-hN", "-o", "%T").split().count("idle") >= len(self._nodes))
        except BaseException:
            self.stop()
            raise

    def _write(self) -> None:
        controller, *nodes = _free_ports(1 + len(self._nodes))
        host = socket.gethostname()
        size = "CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus}".format(**self._size)
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {size}"
            for name, port in zip(self._nodes, nodes, strict=True)
        ]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, controller_port=controller, folder=self.folder, nodes="\n".join(lines))
        )
        devices = [self.folder / f"gpu{index}" for index in range(self._size["gpus"])]
        for path in devices:  # SLURM counts GPUs by their device files; these are further names of /dev/null
            path.unlink(missing_ok=True)
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        gres = f"NodeName={','.join(self._nodes)} Name=gpu Type=fake File={','.join(map(str, devices))}\n"
        (self.folder / "gres.conf").write_text("AutoDetect=off\n" + gres)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # slurmd stops where it finds no cgroups
        (self.folder / "state").mkdir(exist_ok=True)
        SYSTEM.mkdir(exist_ok=True)
        for name in FILES:
            (SYSTEM / name).unlink(missing_ok=True)
            (SYSTEM / name).symlink_to(self.folder / name)

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        options = {
            "socket": "munge.socket",
            "key-file": "munge.key",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
        }
        options["seed-file"] = "munge.seed"
        self._daemon("munged", "--force", *(f"--{key}={self.folder / name}" for key, name in options.items()))

    def _daemon(self, *command: str) -> None:
        """Start a program that goes to the background; it keeps none of our descriptors."""
        with open(self.folder / "start.log", "a") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, close_fds=True)
        if done.returncode:
            raise Unavailable(f"{command[0]} did not start; see {self.folder}/start.log")

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        self._daemon("slurmd", "-N", name)

    def forget(self) -> None:
        """Start the controller anew without its jobs, as after the loss of its state."""
        pid = _pids(self.folder)["slurmctld"]
        os.kill(pid, signal.SIGKILL)
        self._wait("the controller to end", lambda: not _alive(pid))
        self._daemon("slurmctld", "-c")
        self._wait("scontrol ping", lambda: "is UP" in run("scontrol", "ping"))

    def kill_node(self, name: str) -> None:
        """End a node without warning, together with its jobs, as a power cut would."""
        for pid in [_pids(self.folder)[name], *self._processes_of(name)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes_of(self, name: str) -> list[int]:
        """The step managers of a node's jobs, and what they run."""
        jobs = {path.name.split("_")[1].split(".")[0] for path in (self.folder / f"spool-{name}").glob(f"{name}_*.*")}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                title = (process / "cmdline").read_bytes().decode(errors="replace")
                environment = (process / "environ").read_bytes().split(b"\0")
                manages = title.startswith("slurmstepd: [") and title.split("[")[1].split(".")[0] in jobs
                if manages or f"SLURMD_NODENAME={name}".encode() in environment:
                    found.append(int(process.name))
        return found

    @staticmethod
    def _wait(what: str, ready, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):
                if ready():
                    return
            if time.monotonic() > deadline:
                raise Unavailable(f"SLURM did not come up: {what}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel the jobs, end the daemons that were started here, take the links away."""
        if (SYSTEM / "slurm.conf").is_symlink() and (SYSTEM / "slurm.conf").readlink().parent == self.folder:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                jobs = run("squeue", "-h", "-o", "%i", timeout=10).split()
                if jobs:
                    run("scancel", *jobs, timeout=10)
                    self._wait("jobs to end", lambda: not run("squeue", "-h", timeout=10).split(), 15)
        pids = _pids(self.folder)
        for number in (signal.SIGTERM, signal.SIGKILL):
            alive = [pid for pid in pids.values() if _alive(pid)]
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + 10
            while any(map(_alive, alive)) and time.monotonic() < deadline:
                time.sleep(0.1)
        for path in self.folder.glob("*.pid"):
            path.unlink()
        for name in FILES:
            path = SYSTEM / name
            if path.is_symlink() and path.readlink().parent == self.folder:
                path.unlink()

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()


def main() -> None:
    """Start or stop by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("folder", type=Path, help="its name must begin with ltpa-slurm")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs of each of the two nodes")
    parser.add_argument("--cpus", type=int, default=4, help="cores that each node claims to have")
    parser.add_argument("--memory", type=int, default=8000, help="megabytes that each node claims to have")
    options = parser.parse_args()
    try:
        cluster = Cluster(options.folder, options.gpus, options.cpus, options.memory)
        getattr(cluster, options.action)()
    except Unavailable as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
