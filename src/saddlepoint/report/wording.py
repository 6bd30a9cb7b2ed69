"""Numbers in words: rounded outward, never without n and an interval.

A bracket [certified, attacked] is printed with its lower end rounded down and its upper end rounded up, so the
printed interval holds the true one.
"""

from __future__ import annotations

import math
import re

from saddlepoint.ledger.claims import Claim, Interval
from saddlepoint.spec.bracket import Verdict

_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}
_OPTIONS = {"rot": "rotation ≤ {}°", "shift": "shift ≤ {} px"}
_SLACK = 1e-9  # k/n is a rounded quotient: 0.412 · 1000 must not become 411

UNDECIDED = (
    (Verdict.OPEN, "open"),
    (Verdict.NOT_RUN, "not run"),
    (Verdict.ERROR, "failed with an error"),
    (Verdict.CONTRADICTION, "in CONTRADICTION"),
)


def down(value: float, digits: int = 3) -> str:
    """`value` rounded towards −∞."""
    scale = 10**digits
    return f"{math.floor(value * scale + _SLACK) / scale:.{digits}f}"


def up(value: float, digits: int = 3) -> str:
    """`value` rounded towards +∞."""
    scale = 10**digits
    return f"{math.ceil(value * scale - _SLACK) / scale:.{digits}f}"


def interval(ends: Interval, digits: int = 3) -> str:
    """[low, high], rounded outward; a closed bracket has one number, rounded to the nearest.

    >>> interval((0.41239, 0.4471)), interval((29 / 30, 29 / 30))
    ('[0.412, 0.448]', '[0.967, 0.967]')
    """
    if math.isclose(*ends, rel_tol=1e-12):
        return f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return f"[{down(ends[0], digits)}, {up(ends[1], digits)}]"


def threat_name(label: str) -> str:
    """A threat as one says it.

    >>> threat_name("linf:8/255"), threat_name("spatial:rot=30,shift=3"), threat_name("patch:5x5@any")
    ('ℓ∞ 8/255', 'rotation ≤ 30°, shift ≤ 3 px', 'patch 5×5 anywhere')
    """
    plain = re.split(r"→| \(", label, maxsplit=1)[0]  # a goal or a limited access may follow
    label, extra = plain, label[len(plain) :]
    kind, _, rest = label.partition(":")
    if kind in _NORMS and rest:
        label = f"{_NORMS[kind]} {rest}"
    elif kind == "spatial" and rest:
        options = (part.partition("=") for part in rest.split(","))
        label = ", ".join(_OPTIONS.get(key, key + " {}").format(value) for key, _, value in options)
    elif kind == "patch" and rest:
        place = rest.replace("@any", " anywhere").replace("@", " at ")
        label = "patch " + re.sub(r"(\d)x(\d)", r"\1×\2", place)
    return label + extra


def threat_detail(claim: Claim) -> str:
    """What the label leaves out: a query budget. Empty for the strongest adversary."""
    queries = claim.threat.get("queries")
    return f"at most {queries} queries" if queries is not None else ""


def undecided(claim: Claim) -> str:
    """The samples that keep the bracket open, in words."""
    parts = [
        f"{claim.counts.get(verdict, 0)} sample{'s' if claim.counts.get(verdict, 0) != 1 else ''} {words}"
        for verdict, words in UNDECIDED
        if claim.counts.get(verdict, 0)
    ]
    return ", ".join(parts) or "every sample decided"


def sentence(claim: Claim) -> str:
    """The claim as one honest sentence."""
    name = threat_name(claim.label)
    if claim.n == 0:
        return f"no sample was asked about {name}: nothing is known, n = 0"
    text = (
        f"robust accuracy at {name} lies in {interval((claim.certified, claim.attacked))}; "
        f"95 % interval {interval(claim.ci95)}, n = {claim.n}; {undecided(claim)}"
    )
    if claim.failure_probability > 0:
        text += f"; what it rests on by chance holds together with probability ≥ {1 - claim.failure_probability:.4g}"
    return text


def clean_sentence(claim: Claim) -> str:
    """Clean accuracy with n and interval."""
    share = f"{claim.clean_k / claim.clean_n:.3f}" if claim.clean_n else "unknown"
    return f"clean accuracy {share}, 95 % interval {interval(claim.clean_ci95)}, n = {claim.clean_n}"


def seconds(value: float) -> str:
    """A duration for people.

    >>> seconds(0.0123), seconds(75.0), seconds(7320.0)
    ('0.01 s', '1 min 15 s', '2 h 2 min')
    """
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """An ISO time to the minute; any other text as it is.

    >>> moment("2026-05-04T10:00:33.049+00:00"), moment("long ago")
    ('2026-05-04 10:00 UTC', 'long ago')
    """
    if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", text):
        return text
    zone = "UTC" if text.endswith(("Z", "+00:00")) else ""
    return f"{text[:16].replace('T', ' ')} {zone}".rstrip()


def gauge(claim: Claim, value: float) -> str:
    """The size at which a witness lies, in the units in which the threat was written."""
    if claim.threat.get("set", {}).get("kind") == "spatial":
        return f"{value:.3g} of the range"
    if "/255" in claim.label:
        return f"{value * 255:.2f}/255"
    return f"{value:.4g}"
