"""Workers of a Dask cluster: its scheduler gives out the evaluations, and again after a death.

The workers run in the project's folder on a disk that they share, or in the rebuild image with its
data (docker/cluster.yaml), and with the pins of weighin.determinism.
"""

import time
from concurrent.futures import CancelledError, Executor

from distributed import Client
from distributed.scheduler import KilledWorker
from distributed.security import Security

from weighin.determinism import pinned
from weighin.errors import WorkerError
from weighin.progress import say
from weighin.search.cluster_security import certificates, check_address
from weighin.search.workers import FIX, Workers

CONNECT = 10.0  # seconds for the scheduler to answer
PATIENCE = 60.0  # seconds without a single worker


class ClusterWorkers(Workers):
    """The workers of a scheduler at ``tls://host:port``, or ``tcp://127.0.0.1:port``."""

    lost = (KilledWorker, CancelledError)

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            WorkerError: no scheduler answers there, or one that lacks this package; the address is
                open to strangers.
        """
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


def _connected(address: str) -> Client:
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


def _security() -> Security:
    ca, certificate, key = map(str, certificates().values())
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=certificate,
        tls_client_key=key,
    )
