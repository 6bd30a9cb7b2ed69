"""Addresses without their secrets."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

_SCHEMES = ("http", "https")


def is_url(spec: str) -> bool:
    """Whether a MODEL spec is an HTTP address."""
    return urlsplit(spec).scheme.lower() in _SCHEMES


def redact(spec: str) -> str:
    """The address without user, password, query and fragment; other specs unchanged.

    >>> redact("https://me:key@host:8000/v1/score?token=abc#x"), redact("net.onnx")
    ('https://host:8000/v1/score', 'net.onnx')
    """
    if not is_url(spec):
        return spec
    parts = urlsplit(spec)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
