"""LoRA files: damaged, of any keys and headers, of what runs or grows when it is read."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from tests.train.fuzzing import Workshop, kind, refused_or, tree
from tests.train.fuzzing.values import spoiled, text
from utils.lora.loading import load_lora
from utils.models.adapters import adapter_names, remove_adapter

STEM = "lora_unet_double_blocks_0_img_attn_qkv"


class Runs:
    """A pickle that touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


def load(shop: Workshop, data: bytes) -> str:
    """A LoRA comes in whole, or one line does and nothing of it."""
    path, transformer = shop.site / "inner/fuzz.bin", shop.base.transformer
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    before = tree(path.parent.parent)
    metadata = refused_or(lambda: load_lora(transformer, path, "edit"), path.name)
    assert adapter_names(transformer) == ([] if metadata is None else ["edit"])
    if metadata is not None:
        remove_adapter(transformer, "edit")
    assert tree(path.parent.parent) == before
    return "refused" if metadata is None else "read"


@kind("LoRA", 110)
def damaged(draw: Random, shop: Workshop) -> str:
    """Damaged anywhere."""
    return load(shop, spoiled(draw, shop.loras[draw.choice(sorted(shop.loras))]))


@kind("LoRA's keys", 30)
def keys(draw: Random, shop: Workshop) -> str:
    """Tensors under any keys."""
    known = ("transformer.x.lora_A.weight", "../../x", "/etc/passwd", f"{STEM}.alpha", "")
    tensors = (torch.ones(0), torch.ones(2, 2), torch.full((2, 2), math.nan), torch.ones(2).long())
    values = {
        draw.choice((*known, text(draw, 30).encode(errors="replace").decode())): draw.choice(tensors).clone()
        for _ in range(draw.randrange(5))
    }
    if draw.random() < 0.5:
        return load(shop, save_safetensors(values))
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return load(shop, buffer.getvalue())


def _header(draw: Random, depth: int = 2) -> Any:
    way = draw.randrange(6) if depth else draw.randrange(4)
    if way < 4:
        return (None, draw.choice((0, -1, 10**400, 3)), draw.random() * 1e308 * 10, text(draw, 8))[way]
    if way == 4:
        return [_header(draw, depth - 1) for _ in range(draw.randrange(5))]
    names = ("lora_alpha", "r", STEM, text(draw, 5))
    return {draw.choice(names): _header(draw, depth - 1) for _ in range(draw.randrange(4))}


@kind("LoRA's header", 60)
def header(draw: Random, shop: Workshop) -> str:
    """Good tensors under any header."""
    names = ("lora_adapter_metadata", "kohya_parts", "base_hash", "calibration", "ss_network_alpha")
    content = {draw.choice(names): json.dumps(_header(draw)) for _ in range(draw.randrange(4))}
    tensors = load_safetensors(shop.loras[draw.choice(("safetensors", "kohya"))])
    return load(shop, save_safetensors(tensors, content))


@kind("LoRA that does harm", 4)
def harmful(draw: Random, shop: Workshop) -> str:
    """A pickle of a command, or what unpacks to far more than there is room for."""
    how = draw.choice(("pickle", "zip", "torch", "zip bomb", "zip paths", "repeated"))
    ran, buffer = shop.site / "ran", io.BytesIO()
    if how == "pickle":
        buffer.write(pickle.dumps(Runs(ran)))
    elif how == "torch":
        torch.save({"a": Runs(ran)}, buffer)
    elif how == "repeated":
        torch.save({"a": torch.ones(1).expand(10**9)}, buffer)
    else:
        content = pickle.dumps(Runs(ran)) if how == "zip" else bytes(100_000_000 if how == "zip bomb" else 10)
        name = "../../ran" if how == "zip paths" else "archive/data.pkl"
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            file.writestr(name, content)
            file.writestr("archive/version", b"3\n")
    outcome = load(shop, buffer.getvalue())
    assert not ran.exists()
    return outcome
