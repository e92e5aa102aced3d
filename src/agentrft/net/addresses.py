"""What an IP address is: public, inside somebody's network, or a cloud's metadata service.

The lists are IANA's special-purpose registries of IPv4 and IPv6, as of 2026; `ipaddress.is_global` is not used, because
it changes between Python versions and takes NAT64 of loopback, 6to4 and multicast for global.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})

_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure and most others
        "169.254.170.2",  # AWS: a container's credentials
        "169.254.170.23",  # AWS: a pod's credentials
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's own agent
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
_NOT_PUBLIC_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
_UNICAST_6 = IPv6Network("2000::/3")
# Teredo and other protocol assignments, documentation (twice), 6to4.
_NOT_PUBLIC_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")
_LAST_32_BITS = tuple(
    IPv6Network(text)
    for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)  # fmt: skip
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def parse(text: str) -> Address | None:
    """The address in its usual spelling, with or without brackets; None for anything else."""
    try:
        return ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None


def plain(address: Address) -> Address:
    """The same machine in the shortest form: IPv4 for IPv4-mapped IPv6."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def readings(address: Address) -> list[Address]:
    """The address, and every IPv4 address that a gateway on the way could read out of it."""
    if isinstance(address, IPv4Address):
        return [address]
    value = int(address)
    bare = IPv6Address(value)
    found: list[Address] = [bare]
    if any(bare in network for network in _LAST_32_BITS) or (value >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(IPv4Address(value & 0xFFFF_FFFF))
    if bare in IPv6Network("64:ff9b:1::/48"):  # RFC 6052 §2.2: bits 48 to 63, then 72 to 87
        found.append(IPv4Address((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF))
    if bare.sixtofour:
        found.append(bare.sixtofour)
    if bare.teredo:
        found.extend(bare.teredo)
    return found


def is_metadata(address: Address) -> bool:
    """True for a cloud's metadata service, in any form."""
    return any(reading in _METADATA for reading in readings(address))


def is_public(address: Address) -> bool:
    """True for an address of the public internet; for NAT64, when the address behind it is one."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    embedded = readings(address)[1:]
    is_unicast = address in _UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)
    return is_unicast and all(map(is_public, embedded))


def parse_network(text: str) -> Network | None:
    """The network that `10.0.0.0/8` names; None for what is none, or has bits set behind its length."""
    try:
        return ip_network(text)
    except ValueError:
        return None
