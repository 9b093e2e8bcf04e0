"""A real Slurm on this machine for as long as the tests need it: one node, loopback alone, no systemd, no cgroups.

munged, mariadbd, slurmdbd, slurmctld and slurmd run in the foreground below one folder, with ports of their own; the
node pretends to have 8 CPUs. Partition `high` preempts `low`, whose jobs are requeued. Needs root and Debian's packages
slurmctld, slurmd, munge, slurm-client, slurmdbd and mariadb-server-core.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
SQL = Path("/usr/share/mysql")
CPUS = 8


def missing() -> str | None:
    """Say why no Slurm can be had here, None where it can."""
    if os.geteuid() != 0:
        return "a Slurm of its own needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}; see .ci/run" if absent else None


class SlurmSite:
    """The daemons, ended in the order opposite to their start, each by its own process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._daemons: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> SlurmSite:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--user=root"], env=self.environment, check=False, timeout=30)
        wait(lambda: not self.said("squeue", "--noheader"), 30, "an empty queue")
        self._end()

    def said(self, *words: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def accounted(self, jobs: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        """Return state and seconds of every start of the jobs, requeued ones included, by JOB or JOB_INDEX."""
        words = (
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--duplicates",
            "--format=JobID,State,ElapsedRaw",
        )
        found: dict[str, list[tuple[str, int]]] = {}
        for line in self.said(*words, f"--jobs={','.join(jobs)}").splitlines():
            job, state, seconds = line.split("|")
            found.setdefault(job, []).append((state.split()[0], int(seconds or 0)))
        return found

    def _start(self) -> None:
        for name in ("munge", "run", "state", "spool", "log", "db"):
            (self.root / name).mkdir(parents=True)
        key = self.root / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._configure([free_port() for _ in range(4)])
        sock = self.root / "run" / "munge.sock"
        where = {name: self.root / "munge" / name for name in ("pid", "seed", "log")}
        options = [f"--{name}-file={path}" for name, path in where.items()]
        self._daemon("munged", "--foreground", f"--key-file={key}", f"--socket={sock}", *options)
        wait(lambda: works("munge", "-S", sock, "-n"), 20, "munged")
        self._database()
        self._daemon("slurmctld", "-D", "-c", "-f", str(self.conf))
        self._daemon("slurmd", "-D", "-c", "-f", str(self.conf))
        wait(
            lambda: works("sinfo", env=self.environment) and "idle" in self.said("sinfo", "-h", "-o", "%T"), 40, "node"
        )

    def _database(self) -> None:
        options = ["--no-defaults", "--user=root", f"--datadir={self.root / 'db'}", f"--lc-messages-dir={SQL}"]
        tables = [SQL / f"mysql_system_tables{part}.sql" for part in ("", "_data")]
        text = "create database mysql;\nuse mysql;\n" + "".join(path.read_text() for path in tables)
        with (self.root / "log" / "bootstrap").open("wb") as log:
            subprocess.run(
                ["mariadbd", *options, "--bootstrap"], input=text.encode(), stdout=log, stderr=log, check=True
            )
        port = f"--port={self.database_port}"
        where = [f"--socket={self.root / 'run' / 'db.sock'}", f"--pid-file={self.root / 'run' / 'db.pid'}"]
        more = ["--skip-grant-tables", "--bind-address=127.0.0.1", "--innodb-lock-wait-timeout=900"]
        self._daemon("mariadbd", *options, *more, port, *where)
        wait(lambda: listens(self.database_port), 30, "mariadbd")
        self._daemon("slurmdbd", "-D")
        wait(lambda: works("sacctmgr", "-n", "list", "cluster", env=self.environment), 30, "slurmdbd")
        self.said("sacctmgr", "-i", "add", "cluster", "test")

    def _configure(self, ports: Sequence[int]) -> None:
        node, root = socket.gethostname().split(".")[0], self.root
        control, worker, accounts, self.database_port = ports
        # slurmd 22.05 always loads a cgroup plugin, and the one it finds by itself needs systemd. Nothing here uses it.
        (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/nonexistent\n")
        self.conf.write_text(
            CONF.format(node=node, root=root, control=control, worker=worker, accounts=accounts, cpus=CPUS)
        )
        database = root / "slurmdbd.conf"
        database.write_text(DATABASE.format(root=root, accounts=accounts, database=self.database_port))
        database.chmod(0o600)

    def _daemon(self, *words: str) -> None:
        with (self.root / "log" / f"{words[0]}.out").open("wb") as log:
            process = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._daemons.append((words[0], process))

    def _end(self) -> None:
        for _, process in reversed(self._daemons):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(ready: Callable[[], object], seconds: float, what: str) -> None:
    """Ask until the answer is yes."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what}: not there after {seconds:g} s"
        time.sleep(0.2)


def works(*words: object, env: dict[str, str] | None = None) -> bool:
    """Say whether a command ends well."""
    return subprocess.run([str(word) for word in words], env=env, capture_output=True, check=False).returncode == 0


def listens(port: int) -> bool:
    """Say whether something listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CONF = """\
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={worker}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# How long a requeued job waits before it may start again; 120 s where it is not said.
AuthInfo=socket={root}/run/munge.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=10
MinJobAge=86400
DefMemPerCPU=100
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounts}
AccountingStoragePass={root}/run/munge.sock
JobAcctGatherType=jobacct_gather/none
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=high Nodes={node} Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=30 State=UP
PartitionName=low Nodes={node} PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 DefaultTime=30 State=UP
"""
DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounts}
SlurmUser=root
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm_acct_db
"""
