"""Where webhooks may be sent."""

from collections.abc import Iterator

import pytest

from app.core import addresses
from app.core.errors import PanelError
from app.core.settings import settings


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ATHANOR_WEBHOOK_HOSTS", "127.0.0.1, localhost")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "255.255.255.255", "nothing"),
    ],
)
def test_addresses_of_this_machine_and_its_networks_are_not(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.com/", "url_invalid"),
        ("https://", "url_invalid"),
        ("https://user:password@example.com/", "url_invalid"),
        ("https://exa mple.com/", "url_invalid"),
        ("https://example.com:99999/", "url_invalid"),
        ("https://[::1", "url_invalid"),
        ("https://bücher.example/", "url_invalid"),
        ("http://example.com/", "url_refused"),
        ("https://127.0.0.1/", "url_refused"),
        ("https://0x7f.1/", "url_refused"),
        ("https://2130706433/", "url_refused"),
        ("https://[::ffff:10.0.0.1]/", "url_refused"),
        ("https://localhost:8000/", "url_refused"),
    ],
)
def test_other_urls_are_refused(url: str, code: str) -> None:
    with pytest.raises(PanelError) as refused:
        addresses.check(url)
    assert (refused.value.code, refused.value.fields[0].field) == (code, "url")


def test_the_operator_can_list_hosts(listed: None) -> None:
    target = addresses.resolve("http://127.0.0.1:9000/hook?a=b")
    assert (target.address, target.port, target.path) == ("127.0.0.1", 9000, "/hook?a=b")
    assert target.host_header == "127.0.0.1:9000"
    with pytest.raises(PanelError):
        addresses.resolve("http://127.0.0.2/")


def test_a_name_that_leads_to_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: object, **options: object) -> list[object]:
        return [(2, 1, 6, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    with pytest.raises(PanelError):
        addresses.resolve("https://example.com/")
