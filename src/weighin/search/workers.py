"""The workers of a search: processes of this machine, or of a Dask cluster.

Both are `concurrent.futures` executors. A worker that dies takes its evaluation with it, and that
is run again: an evaluation is a pure function of its task, so nobody can tell afterwards.

A cluster's scheduler gives out the evaluations. Its workers run in the project's folder on a disk
that they share, or in the rebuild image with its data (docker/cluster.yaml), and with the pins of
weighin.determinism.

A scheduler, its workers and its clients exchange pickled Python: each of them executes whatever
anybody sends who can connect to it. So an address is one of

    tcp://127.0.0.1:8786   open to the users of this machine alone
    tls://host:8786        open to who has the key in the folder of certificates
    tcp://host:8786        open to everybody on the network; refused unless WEIGHIN_INSECURE_CLUSTER

`weighin certificates` makes the folder: ca.pem, cert.pem and key.pem, one certificate for all.
"""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from weighin.determinism import pinned
from weighin.errors import OutputError, WorkerError
from weighin.files import write_bytes
from weighin.parallel import LATE, Pool, worker_count
from weighin.progress import say

if TYPE_CHECKING:  # half a second that most searches save
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as Key
    from distributed import Client
    from distributed.security import Security

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3  # times that the worker of one evaluation may go away
PRELOAD = ("weighin.search.evaluation", LATE)
LOOK = 5.0  # seconds between looks at the workers
FIX = "run the same command again: finished evaluations are kept"
CONNECT = 10.0  # seconds for the scheduler to answer
PATIENCE = 60.0  # seconds without a single worker
CERTIFICATES, INSECURE = "WEIGHIN_CERTIFICATES", "WEIGHIN_INSECURE_CLUSTER"
DEFAULT_FOLDER = Path(".weighin/certificates")
FILES = ("ca.pem", "cert.pem", "key.pem")
QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")  # it serves HTTP all the same
VALID = timedelta(days=3650)


class Workers(ABC):
    """Runs a function on tasks until all are done; a slot is an executor that takes one task."""

    lost: tuple[type[BaseException], ...]  # what a future raises whose worker went away

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let the workers go, in the middle of an evaluation if need be."""

    @abstractmethod
    def slots(self, tasks: int) -> list[Executor]:
        """Return the executors for so many tasks, one for each task that may run at a time."""

    @abstractmethod
    def renewed(self, slot: Executor) -> Executor:
        """Return a slot in the place of one whose worker went away."""

    @abstractmethod
    def look(self, finished: int) -> None:
        """Look after the workers, of which so many have just finished a task or went away.

        Raises:
            WorkerError: there are none.
        """

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield (place of a task, its result) in the order in which they finish.

        Raises:
            WorkerError: the workers of one evaluation went away again and again.
        """
        waiting, free = deque(range(len(tasks))), self.slots(len(tasks))
        running: dict[Future[R], tuple[int, Executor]] = {}
        failures: Counter[int] = Counter()
        while waiting or running:
            while waiting and free:
                place, slot = waiting.popleft(), free.pop()
                running[self._submitted(slot, function, tasks[place])] = place, slot
            finished, _ = wait(running, LOOK, FIRST_COMPLETED)
            self.look(len(finished))
            for future in finished:
                place, slot = running.pop(future)
                try:
                    result = future.result()
                except self.lost:
                    failures[place] += 1
                    if failures[place] > RETRIES:
                        raise _gone_too_often(failures[place]) from None
                    say("a worker went away: its evaluation is run again")
                    free.append(self.renewed(slot))
                    waiting.appendleft(place)
                else:
                    free.append(slot)
                    yield place, result

    def _submitted(self, slot: Executor, function: Callable[[T], R], task: T) -> Future[R]:
        try:
            return slot.submit(function, task)
        except self.lost as error:  # its worker went away while it had nothing to do
            future: Future[R] = Future()
            future.set_exception(error)
            return future


def _gone_too_often(times: int) -> WorkerError:
    problem = f"the workers of one evaluation went away {times} times (killed, or no memory)"
    return WorkerError(problem, f"lower `workers` or `recipe.shard_size`, then {FIX}")


class LocalWorkers(Workers):
    """So many processes, started when they are needed and gone when this one is.

    Each is an executor of its own: one pool for all would break as a whole when one of its
    processes is killed.
    """

    lost = (BrokenProcessPool,)

    def __init__(self, count: int) -> None:
        self._count = count
        self._slots: list[Pool] = []

    def close(self) -> None:
        """Let the workers go, in the middle of an evaluation if need be."""
        for slot in self._slots:
            slot.drop()

    def slots(self, tasks: int) -> list[Executor]:
        """Return one executor a process."""
        while len(self._slots) < min(self._count, tasks):
            self._slots.append(Pool(1, PRELOAD))
        return list(self._slots)

    def renewed(self, slot: Executor) -> Executor:
        """Return another process for one that is dead."""
        place = self._slots.index(slot)  # type: ignore[arg-type]
        self._slots[place].drop()
        self._slots[place] = Pool(1, PRELOAD)
        return self._slots[place]

    def look(self, finished: int) -> None:
        """Do nothing: an executor notices by itself when its process dies."""


def open_workers(setting: int | str, cluster: str | None, most: int) -> Workers:
    """Return the workers that params name, at most one a trial of a generation.

    WEIGHIN_CLUSTER in the environment overrides the cluster: it changes the speed, never a byte.

    Raises:
        WorkerError: there is no cluster where they name one.
    """
    cluster = os.environ.get("WEIGHIN_CLUSTER") or cluster
    if cluster is None:
        return LocalWorkers(worker_count(setting, most))
    return ClusterWorkers(cluster)


class ClusterWorkers(Workers):
    """The workers of a scheduler at ``tls://host:port``, or ``tcp://127.0.0.1:port``."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            WorkerError: no scheduler answers there, or one that lacks this package; the address is
                open to strangers.
        """
        from distributed.scheduler import KilledWorker

        self.lost = (KilledWorker, CancelledError)
        self._address = address
        self._client = _connected(address)
        self._executor: Executor = self._client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        self._seen = time.monotonic()

    def close(self) -> None:
        """Cancel what runs, and leave the cluster to others."""
        self._executor.shutdown(wait=False)
        self._client.close()  # type: ignore[no-untyped-call]

    def slots(self, tasks: int) -> list[Executor]:
        """Return the cluster once a task: its scheduler knows who is free."""
        self._has_workers()  # the last tasks may have been done long ago
        return [self._executor] * tasks

    def renewed(self, slot: Executor) -> Executor:
        """Return the cluster, unless it is gone.

        Raises:
            WorkerError: the scheduler went away.
        """
        if self._client.status != "running":
            problem = f"the Dask scheduler at {self._address} went away"
            raise WorkerError(problem, f"start it again, then {FIX}")
        return slot

    def look(self, finished: int) -> None:
        """Wait for workers, up to PATIENCE seconds from when one was last seen.

        Raises:
            WorkerError: the cluster has none, or is gone.
        """
        if finished:  # a worker did it
            self._seen = time.monotonic()
            return
        self.renewed(self._executor)
        waited = time.monotonic() - self._seen
        if self._has_workers():
            return
        if waited > PATIENCE:
            problem = f"the cluster at {self._address} has had no worker for {waited:.0f} s"
            raise WorkerError(problem, f"start one by `weighin worker {self._address}`, then {FIX}")
        say(f"the cluster at {self._address} has no worker: waiting for one")

    def _has_workers(self) -> bool:
        there = bool(self._client.scheduler_info(n_workers=0)["n_workers"])
        self._seen = time.monotonic() if there else self._seen
        return there


def _connected(address: str) -> "Client":
    from distributed import Client

    security = _security() if check_address(address) == "tls" else None
    try:
        client = Client(address, timeout=CONNECT, security=security, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        problem = f"no Dask scheduler answers at {address} ({reason})"
        fix = "start one by `weighin scheduler`, or set the stage's cluster to null"
        raise WorkerError(problem, fix) from None
    try:
        client.run_on_scheduler(pinned)  # type: ignore[no-untyped-call]
    except ImportError as error:  # it reads each task before it gives it out
        client.close()  # type: ignore[no-untyped-call]
        problem = f"the Dask scheduler at {address} does not find weighin ({error})"
        fix = "start it by `weighin scheduler`, in the project's folder"
        raise WorkerError(problem, fix) from None
    return client


def _security() -> "Security":
    from distributed.security import Security

    ca, certificate, key = map(str, certificates().values())
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=certificate,
        tls_client_key=key,
    )


def certificates() -> dict[str, Path]:
    """Return the files of the certificates that WEIGHIN_CERTIFICATES or the project's folder has.

    Raises:
        WorkerError: one is missing.
    """
    folder = Path(os.environ.get(CERTIFICATES, DEFAULT_FOLDER))
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        problem = f"the folder of certificates {folder} has no {', '.join(missing)}"
        fix = f"make it by `weighin certificates`, or name it in {CERTIFICATES}"
        raise WorkerError(problem, f"{fix}; it must be the same on every machine")
    return {name: folder / name for name in FILES}


def check_address(address: str) -> str:
    """Return the scheme of an address, ``tls`` or ``tcp``, that strangers cannot reach.

    Raises:
        WorkerError: it is none, or is open to the network.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname:
        problem = f"the cluster's address is {address}"
        raise WorkerError(problem, "write it as tls://host:8786, or tcp://127.0.0.1:8786")
    if parts.scheme == "tcp" and not _is_loopback(parts.hostname) and not os.environ.get(INSECURE):
        problem = (
            f"{address} is open to everybody who reaches it, and Dask executes what it is sent"
        )
        fix = f"use {address.replace('tcp://', 'tls://')}; where the network is trusted, set "
        raise WorkerError(problem, f"{fix}{INSECURE}=1")
    return parts.scheme


def scheduler_command(address: str) -> list[str]:
    """Return the command of a scheduler that listens at an address.

    Raises:
        WorkerError: as `check_address` and `certificates`.
    """
    options = _tls_options(check_address(address))
    parts = urlsplit(address)
    where = ["--host", f"{parts.scheme}://{parts.hostname}", "--port", str(parts.port or 8786)]
    return [sys.executable, "-m", "dask", "scheduler", *where, *options, *QUIET]


def worker_command(address: str, processes: int | None = None) -> list[str]:
    """Return the command of workers for the scheduler at an address, one a core or so many.

    One thread each: torch must not share its process. Dask's own memory limit is off, because it
    pauses a worker that packed images, which are mapped from disk, make look large.

    Raises:
        WorkerError: as `check_address` and `certificates`.
    """
    options = _tls_options(check_address(address))
    host = urlsplit(address).hostname or ""
    here = ["--host", host] if _is_loopback(host) else []
    many = ["--nworkers", "auto" if processes is None else str(processes), "--nthreads", "1"]
    start = [sys.executable, "-m", "dask", "worker", address, *many, "--memory-limit", "0"]
    return [*start, *here, *options, *QUIET]


def make_certificates(folder: Path) -> None:
    """Write ca.pem, cert.pem and key.pem into a new folder, for every machine of a cluster.

    The authority signs this one certificate, and its key is forgotten: nobody gets a second one.

    Raises:
        OutputError: the folder has one already, or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    present = [folder / name for name in FILES if (folder / name).exists()]
    if present:
        raise OutputError(f"{present[0]} exists", "name a new folder, or remove it first")
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    write_bytes(folder / "ca.pem", _certificate("weighin authority", authority, authority, True))
    write_bytes(folder / "cert.pem", _certificate("weighin", own, authority, False))
    _write_key(folder / "key.pem", own)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls_options(scheme: str) -> list[str]:
    if scheme != "tls":
        return []
    files = certificates()
    names = zip(("--tls-ca-file", "--tls-cert", "--tls-key"), FILES, strict=True)
    return [word for option, name in names for word in (option, str(files[name]))]


def _certificate(name: str, key: "Key", authority: "Key", is_authority: bool) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    subject, issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        for common in (name, "weighin authority")
    )
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + VALID)
    constraints = x509.BasicConstraints(ca=is_authority, path_length=None)
    builder = builder.add_extension(constraints, critical=True)
    return builder.sign(authority, SHA256()).public_bytes(Encoding.PEM)


def _write_key(path: Path, key: "Key") -> None:
    from cryptography.hazmat.primitives import serialization

    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
