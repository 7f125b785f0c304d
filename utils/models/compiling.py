"""torch.compile for a transformer with adapters: block by block, once for all adapters and scales."""

from __future__ import annotations

from typing import Any

import torch


def compile_blocks(transformer: Any, backend: str = "inductor") -> None:
    """Compile every kind of repeated block, each once for all its copies, when first run.

    Every set of adapters that acts, and whether gradients are asked for, makes a version of its own, which
    stays: going back and forth between them compiles nothing anew. Scales make none, they are a tensor.

    Args:
        transformer: of diffusers, with or without adapters.
        backend: of torch.compile.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    transformer.compile_repeated_blocks(backend=backend)
