import socket

import pytest

from serving.exceptions import StartError
from serving.listening import Address, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_reported_with_its_address(host: str) -> None:
    with listen(Address(host, 0)) as first:
        address = Address(host, first.getsockname()[1])
        with pytest.raises(StartError, match=r"can't listen on .*: Address already in use") as refused:
            listen(address)
    assert str(address) in str(refused.value)


@pytest.mark.parametrize(("host", "written"), [("10.0.0.1", "10.0.0.1:80"), ("fd00::1", "[fd00::1]:80")])
def test_an_address_is_written_as_in_a_url(host: str, written: str) -> None:
    assert str(Address(host, 80)) == written


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(StartError, match=r"can't listen on nowhere\.invalid:80: "):
        listen(Address("nowhere.invalid", 80))


def test_a_shared_port_accepts_only_listeners_that_share_it() -> None:
    with listen(Address("127.0.0.1", 0, is_shared=True)) as first:
        port = first.getsockname()[1]
        with listen(Address("127.0.0.1", port, is_shared=True)) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(StartError):
            listen(Address("127.0.0.1", port))


def test_the_socket_listens() -> None:
    with listen(Address("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert client.getpeername() == listener.getsockname()
