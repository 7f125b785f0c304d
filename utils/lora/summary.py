"""What `python -m utils.lora inspect` prints of a LoRA file."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from utils.lora.files import LoraFile


def summarise(file: LoraFile) -> None:
    """Print what a file holds: format, linears, ranks, alphas, norms, header."""
    from utils.lora.algebra import change_norm

    loras = file.loras.values()
    norms = {name: change_norm(lora) for name, lora in file.loras.items()}
    greatest, least = max(norms, key=lambda name: norms[name]), min(norms, key=lambda name: norms[name])
    blocks = Counter(re.sub(r"\.\d+\..*", "", name) for name in norms)
    _print("format", file.format)
    _print("linears", f"{len(norms)}: {counted(blocks)}")
    _print("ranks", counted(Counter(lora.rank for lora in loras)))
    _print("alphas", counted(Counter(f"{lora.alpha:g}" for lora in loras)))
    _print("dtypes", counted(Counter(str(lora.weight_a.dtype).removeprefix("torch.") for lora in loras)))
    _print("norm", f"{math.hypot(*norms.values()):.4g} of alpha / rank B A, over all linears")
    _print("", f"{norms[greatest]:.4g} the greatest, {greatest}")
    _print("", f"{norms[least]:.4g} the least, {least}")
    for word in file.words:
        rows = ", ".join(f"{len(own)} of {part}" for part, own in word.rows.items())
        _print("new word", f"{word.word}: {rows}; other encoders read {word.spelled or word.word}")
    if file.left:
        _print("left out", f"{len(file.left)} tensors of a text encoder, as {file.left[0]}")
    for key, text in sorted((key, text) for key, text in file.metadata.items() if key != "format"):
        for number, line in enumerate(_readable(text).splitlines() or [""]):
            _print(key if number == 0 else "", line)


def counted(counter: Mapping[Any, int]) -> str:
    """ "16", or "4 (3 times), 16 (19 times)" where they differ."""
    if len(counter) == 1:
        return str(next(iter(counter)))
    return ", ".join(f"{value} ({count} times)" for value, count in counter.items())


def _readable(text: str) -> str:
    """A header's text; an object in JSON as a line for each key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict):
        return text
    return "\n".join(f"{key}: {json.dumps(each, ensure_ascii=False)}" for key, each in value.items())


def _print(label: str, text: str) -> None:
    # a header may hold anything, a terminal's control characters too
    print(f"{label:<12} {''.join(char if char.isprintable() else '?' for char in text)}".rstrip())
