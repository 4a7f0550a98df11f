"""Which addresses a cluster may have, and the certificates that open one."""

import ssl
from itertools import pairwise
from pathlib import Path

import pytest

from weighin.errors import OutputError, WorkerError
from weighin.search.workers import (
    FILES,
    check_address,
    make_certificates,
    scheduler_command,
    worker_command,
)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"]
)
def test_this_machine_needs_no_certificate(address: str) -> None:
    assert check_address(address) == "tcp"
    assert "--host" in worker_command(address) and "--tls-key" not in worker_command(address)


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "tcp://host:8786", "tcp://0.0.0.0:1"])
@pytest.mark.parametrize("command", [scheduler_command, worker_command])
def test_the_network_is_refused_unless_told_otherwise(
    address: str, command: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkerError) as caught:
        command(address)  # type: ignore[operator]
    assert caught.value.problem.startswith(f"{address} is open to everybody")
    assert address.replace("tcp", "tls") in caught.value.fix
    assert "WEIGHIN_INSECURE_CLUSTER=1" in caught.value.fix
    monkeypatch.setenv("WEIGHIN_INSECURE_CLUSTER", "1")
    assert command(address)  # type: ignore[operator]


@pytest.mark.parametrize("address", ["host:8786", "http://host", "tls://", "8786"])
def test_an_address_of_another_form(address: str) -> None:
    with pytest.raises(WorkerError) as caught:
        check_address(address)
    assert caught.value.problem == f"the cluster's address is {address}"
    assert caught.value.fix == "write it as tls://host:8786, or tcp://127.0.0.1:8786"


def test_the_network_with_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHIN_CERTIFICATES", str(tmp_path / "certificates"))
    with pytest.raises(WorkerError) as caught:
        worker_command("tls://host:8786")
    assert "has no ca.pem, cert.pem, key.pem" in caught.value.problem
    assert "`weighin certificates`" in caught.value.fix
    make_certificates(tmp_path / "certificates")
    for command in (worker_command("tls://host:8786"), scheduler_command("tls://0.0.0.0:8786")):
        options = dict(pairwise(command))
        assert options["--tls-ca-file"] == str(tmp_path / "certificates/ca.pem")
        assert options["--tls-key"] == str(tmp_path / "certificates/key.pem")


def test_the_key_is_its_owners_and_fits_the_certificate(tmp_path: Path) -> None:
    make_certificates(tmp_path / "new")
    paths = [tmp_path / "new" / name for name in FILES]
    assert paths[2].stat().st_mode & 0o777 == 0o600
    context = ssl.create_default_context(cafile=str(paths[0]))
    context.load_cert_chain(paths[1], paths[2])  # raises where they do not fit
    before = [path.read_bytes() for path in paths]
    with pytest.raises(OutputError) as caught:
        make_certificates(tmp_path / "new")
    assert caught.value.problem == f"{paths[0]} exists"
    assert [path.read_bytes() for path in paths] == before
