"""Values that people, programs and attackers write, drawn from a random generator."""

from __future__ import annotations

from random import Random
from typing import Any

from utils.config.schema import KEYS

NAMES = sorted(KEYS)
TRICKS = (
    *("../../out", "/tmp/out", "..", ".", "a/../../b", "a\\..\\b", "a\0b", "~/out", "$HOME", "%2e%2e/"),
    *("con", "${oc.env:HOME}", "${x", "???", "NUL", "--", "-h", "", " ", "\n", "\r", "\x1b[31m", "\u202e"),
    *("x" * 300, "x" * 5000, "\ud800", "a\x85b", "None", "null", "~", "yes", "0x10", "0o7", "1_000", "1:30"),
    "!!python/object/apply:os.system ['touch ran']",
)
NUMBERS = (
    *(0, 1, -1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 10**9, 10**12, 10**30, 10**400),
    *(0.5, 1e-300, 1e300, 3e38, -0.0, float("inf"), float("-inf"), float("nan")),
)
# pieces of YAML that mean something, alone or in each other
PIECES = (
    *(
        "!!int x",
        "!!bool ",
        "!!timestamp 1",
        "!!python/object/apply:os.system [ls]",
        "!!binary =",
        "!a ",
        "! ",
    ),
    *(
        "!!set ",
        "!!omap ",
        "!!null ",
        "&a ",
        "*a",
        "<<: *a",
        "[",
        "]",
        "{",
        "}",
        "- ",
        "? ",
        ": ",
        ",",
        "|\n",
    ),
    *(">-\n", "%YAML 9.9\n", "%TAG ! x:\n", "---\n", "...\n", "\0", "\t", '"', "'", "#", "\x85", "\u2028"),
    *(
        "\ufeff",
        "\ud800",
        "2001-01-01",
        "0o7",
        "1_000",
        "~",
        "null",
        ".inf",
        ".nan",
        "0x10",
        "1:30",
        "\n",
        " ",
    ),
    *(
        "rank: 3\n",
        "datasets: [age]\n",
        "scales: auto\n",
        "prompt: portrait: old\n",
        "x" * 3000,
        "base: mini\n",
    ),
)


def text(draw: Random, most: int = 20) -> str:
    """Any characters, control characters and lone surrogates among them."""
    limits = (0x7F, 0x7F, 0x7F, 0x300, 0xFFFF, 0x10FFFF)
    return "".join(chr(draw.randint(0, draw.choice(limits))) for _ in range(draw.randint(0, most)))


def name(draw: Random) -> str:
    """A key, or anything."""
    return draw.choice(NAMES) if draw.random() < 0.85 else text(draw, 12)


def scalar(draw: Random) -> Any:
    """None, a flag, a number or a text."""
    way = draw.randrange(7)
    if way == 0:
        return draw.choice((None, True, False))
    if way < 3:
        return draw.choice(NUMBERS) if way == 1 else draw.randint(-100, 100) / draw.choice((1, 3))
    return draw.choice(TRICKS) if way < 5 else text(draw)


def value(draw: Random, depth: int = 2) -> Any:
    """A scalar, or a list or mapping."""
    way = draw.randrange(6) if depth else 0
    if way < 4:
        return scalar(draw)
    if way == 4:
        return [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {text(draw, 3): value(draw, depth - 1) for _ in range(draw.randrange(3))}


def yaml_text(draw: Random) -> str:
    """Pieces of YAML after each other, some of them many times."""
    parts = []
    for _ in range(draw.randint(1, 8)):
        times = draw.choice((1, 1, 1, 1, 2, 40, 3000)) if draw.random() < 0.9 else 300_000
        part = draw.choice(PIECES) if draw.random() < 0.8 else text(draw)
        parts.append(part * max(1, min(times, 12_000_000 // max(1, len(part)))))
    return "".join(parts)[:12_000_000]


def spoiled(draw: Random, good: bytes) -> bytes:
    """A file cut short, with bytes changed, put in or taken out, or of bytes alone."""
    data = bytearray(good)
    how = draw.choice(("cut", "change", "insert", "remove", "noise", "front", "empty", "zeros", "twice"))
    if how == "cut":
        return bytes(data[: draw.randrange(len(data) + 1)])
    if how in ("noise", "empty"):
        return draw.randbytes(draw.randrange(200)) if how == "noise" else b""
    if how == "zeros":  # what a file system leaves of a file after a power cut
        return bytes(len(data))
    if how == "twice":
        return bytes(data + data)
    if how == "front":  # the part that says what it is
        return draw.randbytes(draw.randint(1, 16)) + bytes(data[draw.randint(0, 16) :])
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(data)) if data else 0
        if how == "change" and data:
            data[place] = draw.randrange(256)
        elif how == "insert":
            data[place:place] = draw.randbytes(draw.randint(1, 8))
        else:
            del data[place : place + draw.randint(1, 100)]
    return bytes(data)
