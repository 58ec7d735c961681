"""Which addresses are this machine's own, and what nobody on the way can read."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(place: str) -> bool:
    """
    >>> [is_loopback(p) for p in ("localhost:9092", "127.8.0.1:1", "[::1]:9092", "kafka:9092")]
    [True, True, True, False]
    """
    host = urlsplit(f"//{place.strip()}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(url: str) -> bool:
    """
    >>> is_private("https://id.example/t"), is_private("http://id.example/t")
    (True, False)
    """
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))
