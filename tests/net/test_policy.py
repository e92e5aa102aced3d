"""Which addresses may be asked: 29 that are not public, clouds' metadata in every form, and what must get through."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agentrft.errors import UserError
from agentrft.net.addresses import is_metadata, is_public
from agentrft.net.policy import Forbidden, NetworkPolicy, Server

NOT_PUBLIC = [
    "0.0.0.0", "10.0.0.5", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.0.1", "172.16.0.1", "192.0.0.8",
    "192.0.2.1", "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:808:808::80ff:fffe", "fc00::1", "fe80::1", "fec0::1",
    "ff02::1",
]  # fmt: skip
MORE_NOT_PUBLIC = [
    "5f00::1", "100::1", "2001:db8::1", "2001:2::1", "3fff::1", "168.63.129.16", "192.88.99.1", "240.0.0.1",
    "fe80::1%eth0", "2600::5efe:7f00:1", "2600::200:5efe:10.0.0.5", "2002:808:808::", "::8.8.8.8", "4000::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "100.128.0.1", "223.255.255.254",
    "2606:4700:4700::1111", "2a00:1450:4001::200e", "64:ff9b::808:808", "::ffff:8.8.8.8",
]  # fmt: skip
METADATA = [
    "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "::ffff:169.254.169.254",
    "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "2002:a9fe:a9fe::1",
    "2001:0:808:808::5601:5601", "2600::5efe:a9fe:a9fe", "fd00:ec2::254%1",
]  # fmt: skip


def may_ask(policy: NetworkPolicy, url: str, *addresses: str) -> bool:
    try:
        policy.check_url(url)
        policy.check(Server.of(url), [ip_address(address) for address in addresses])
    except Forbidden:
        return False
    return True


def test_there_are_29():
    assert len(NOT_PUBLIC) == len(set(NOT_PUBLIC)) == 29


@pytest.mark.parametrize(
    ("address", "public"),
    [*((one, False) for one in NOT_PUBLIC + MORE_NOT_PUBLIC), *((one, True) for one in PUBLIC)],
)
def test_what_is_public(address, public):
    assert is_public(ip_address(address)) is public
    assert may_ask(NetworkPolicy.public(), "https://tools.example/x", address) is public
    # One answer that is not public spoils the others.
    assert may_ask(NetworkPolicy.public(), "https://tools.example/x", "8.8.8.8", address, "1.1.1.1") is public


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_list_of_everything_lets_everything_through_but_metadata(address):
    everything = NetworkPolicy.public(allow=["0.0.0.0/0", "::/0"])
    url = "http://inside:9000/x"
    assert may_ask(everything, url, address) is (address not in ("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_out_of_reach(address):
    assert is_metadata(ip_address(address))
    listed = NetworkPolicy.public(
        allow=["0.0.0.0/0", "::/0", "169.254.169.254:80", "[fd00:ec2::254]:80", "meta.example:80"]
    )
    for policy in (NetworkPolicy.public(), NetworkPolicy.local(), listed):
        assert not may_ask(policy, "http://meta.example/latest", address)


@pytest.mark.parametrize(
    "host", ["metadata.google.internal", "METADATA.google.internal.", "metadata", "169.254.169.254"]
)
def test_and_so_are_their_names(host):
    for policy in (NetworkPolicy.local(), NetworkPolicy.public(allow=["metadata.google.internal:80", "0.0.0.0/0"])):
        with pytest.raises(Forbidden, match="metadata service, which nobody may ask"):
            policy.check_url(f"http://{host}/computeMetadata/v1/")


@pytest.mark.parametrize(
    ("url", "address", "allowed"),
    [
        ("https://tools.example/x", "8.8.8.8", True),
        ("https://tools.example:8443/x", "8.8.8.8", True),
        ("https://tools.example:80/x", "8.8.8.8", True),
        ("https://tools.example:22/x", "8.8.8.8", False),
        ("http://tools.example/x", "8.8.8.8", False),
        ("http://tools.internal:8080/x", "10.9.9.9", True),  # listed by name: whatever it resolves to
        ("http://TOOLS.internal.:8080/x", "10.9.9.9", True),
        ("http://tools.internal:8081/x", "10.9.9.9", False),
        ("https://tools.internal/x", "10.9.9.9", False),
        ("http://x.tools.internal:8080/x", "10.9.9.9", False),
        ("http://10.0.0.5:9000/x", "10.0.0.5", True),
        ("http://[::ffff:10.0.0.5]:9000/x", "::ffff:10.0.0.5", True),
        ("http://inside:9000/x", "10.0.0.5", True),  # a name at a listed address
        ("http://10.0.0.5:9001/x", "10.0.0.5", False),
        ("http://10.0.0.6:9000/x", "10.0.0.6", False),
        ("http://192.168.7.7:5000/x", "192.168.7.7", True),
        ("http://inside:5000/x", "192.168.7.7", True),
        ("http://inside:5000/x", "::ffff:192.168.7.7", True),
        ("http://192.168.8.7:5000/x", "192.168.8.7", False),
        ("http://[fd00::5]:9000/x", "fd00::5", True),
        ("http://[fd00:0::0:5]:9000/x", "fd00::5", True),
        ("http://[fd00::6]:9000/x", "fd00::6", False),
    ],
)
def test_what_an_operator_lists(url, address, allowed):
    policy = NetworkPolicy.public(
        allow=["tools.internal:8080", "10.0.0.5:9000", "192.168.7.0/24", "[fd00:0:0::5]:9000"]
    )
    assert may_ask(policy, url, address) is allowed


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://tools.example/x", "is to be asked over http, expected https"),
        ("https://tools.example:25/x", "has port 25, expected one of 80, 443, 8443"),
        ("https://127.0.0.1/x", "is at 127.0.0.1, which is not public"),
        ("https://[::1]/x", r"\[::1\]:443 is at ::1, which is not public"),
    ],
)
def test_what_a_url_shows_is_refused_before_any_look_up(url, said):
    with pytest.raises(Forbidden, match=said):
        NetworkPolicy.public().check_url(url)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "::1", "8.8.8.8", "fe80::1"])
def test_a_person_at_the_keyboard_may_ask_what_the_machine_reaches(address):
    assert may_ask(NetworkPolicy.local(), "http://inside:9000/x", address)


@pytest.mark.parametrize(
    "entry",
    ["", "host", "10.0.0.5", "10.0.0.1/8", "host:0", "host:70000", "http://host:80", "u@h:80", "h:80/x", "[zz]:80",
     "h:80?x", "10.0.0.0/33", "fd00::5:9000", ":80", "h h:80", "höst:80"],
)  # fmt: skip
def test_entries_that_mean_nothing_are_refused(entry):
    with pytest.raises(UserError, match="expected `host:port` or a network such as") as caught:
        NetworkPolicy.public(allow=[entry], param="network.allow")
    assert caught.value.param == "network.allow"
