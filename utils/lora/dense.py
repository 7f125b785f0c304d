"""Adapters that are no plain LoRA, as the changes of weights that they mean, and the LoRAs nearest to them.

    LoHa   change = alpha / rank * (W1a W1b) o (W2a W2b)       o: elementwise      Hyeon-Woo et al. 2022
    LoKr   change = alpha / rank * W1 (x) W2                   (x): Kronecker      Yeh et al. 2024
           either of them whole, or a product; without any product alpha / rank is 1
    full   change = the difference itself
    DoRA   change = m (W + change') / ||W + change'|| - W      change' of one of the others  Liu et al. 2024
           the norm by rows where m has one number for each, by columns where it is one row

All in float64, with the definitions of LyCORIS and peft.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from utils.lora import parts
from utils.lora.algebra import Approximation, energy_shares, nearest_lora
from utils.lora.fusing import swap_halves
from utils.lora.linear import LinearLora, Misfit
from utils.lora.names import Module
from utils.lora.peft_config import PeftConfig
from utils.lora.reading import Adapter, Contents

_MOST = 2**28  # numbers in one weight; FLUX.1's greatest has 66 million
_NEEDED = {
    parts.LOHA: ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    parts.FULL: ("diff",),
}


def nearest_loras(
    contents: Contents, metadata: Mapping[str, str], rank: int, base: Mapping[str, Tensor] | None
) -> Approximation:
    """The plain LoRAs of a rank no greater than `rank` nearest to what a file's adapters change.

    Args:
        contents: of any kinds that have a formula above.
        metadata: of the file's header.
        rank: most for a linear.
        base: weights of the base transformer by their names in its state dict, which a DoRA needs.

    Returns:
        As `algebra.extract`; `left` are biases.

    Raises:
        Misfit: naming every module whose tensors make none of these adapters.
    """
    configs = {part: PeftConfig.of(metadata, part) for part in contents.parts}
    loras: dict[str, LinearLora] = {}
    energies, left, faults = {}, [], []
    for adapter in contents.adapters.values():
        try:
            changes = _changes(adapter, configs[adapter.module.part], base)
        except Misfit as misfit:
            faults.append(str(misfit))
            continue
        for name, change in changes.items():
            if change.any():
                loras[name], energies[name] = nearest_lora(change, rank)
        left += [f"{name}.bias" for name in adapter.module.linears if parts.BIAS in adapter.parts]
    if faults:
        raise Misfit(faults)
    return Approximation(loras, *energy_shares(energies), tuple(left))


def _changes(adapter: Adapter, config: PeftConfig, base: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Change (out, in) of each of a module's linears; raises `Misfit` for tensors that make none."""
    module, found = adapter.module, adapter.parts
    if fault := parts.misfit(module.body, found):
        raise Misfit([fault])
    try:
        change = _change(adapter, config)
        if "magnitude" in found:
            change = _decomposed(change, found["magnitude"].double(), _base_weight(module, base))
    except RuntimeError as error:  # of torch, for matrices that do not go together
        reason = str(error).splitlines()[0]
        raise Misfit([f"{module.body} of shapes that do not go together: {reason}"]) from None

    # The rows of fused linears are shared out.
    if change.ndim != 2 or change.shape[0] % sum(module.shares):
        raise Misfit([f"{module.body} of shape {tuple(change.shape)} where (out, in) fits"])
    unit = change.shape[0] // sum(module.shares)
    rows = change.split([share * unit for share in module.shares])
    rows = (swap_halves(rows[0]),) if module.swapped else rows
    return dict(zip(module.linears, rows, strict=True))


def _change(adapter: Adapter, config: PeftConfig) -> Tensor:
    """Change (out, in) of a module, less what a DoRA makes of it, its rows as in the file; float64."""
    body = adapter.module.body
    found = {part: tensor.double() for part, tensor in adapter.parts.items()}
    kind = parts.kind_of(
        {kind for kind in adapter.kinds if kind not in (parts.DORA, parts.BIASED)} or {parts.FULL}
    )
    if missing := [part for part in _NEEDED.get(kind, ()) if part not in found]:
        raise Misfit([f"{body} without its {' and '.join(missing)}"])
    if kind == parts.LORA:
        if fault := parts.lora_misfit(body, adapter.parts):
            raise Misfit([fault])
        alpha = (
            found[parts.ALPHA].item() if parts.ALPHA in found else config.alpha_of(body, len(found[parts.A]))
        )
        _check_size(body, len(found[parts.B]), found[parts.A].shape[1])
        return alpha / len(found[parts.A]) * found[parts.B] @ found[parts.A]
    if kind == parts.LOHA:
        _check_size(body, len(found["hada_w1_a"]), found["hada_w1_b"].shape[-1])
        whole = (found["hada_w1_a"] @ found["hada_w1_b"]) * (found["hada_w2_a"] @ found["hada_w2_b"])
        return _scale(found, len(found["hada_w1_b"])) * whole
    if kind == parts.LOKR:
        one, two = (_factor(found, f"lokr_w{number}", body) for number in (1, 2))
        _check_size(body, one.numel(), two.numel())
        ranks = [len(found[part]) for part in ("lokr_w1_b", "lokr_w2_b") if part in found]
        return (_scale(found, ranks[0]) if ranks else 1.0) * torch.kron(one, two)
    if kind == parts.FULL:
        return found["diff"]
    raise Misfit([f"{body} is a {kind}, which no LoRA is made of here"])


def _check_size(body: str, rows: int, columns: int) -> None:
    if rows * columns > _MOST:
        raise Misfit([f"{body} of {rows * columns} numbers where {_MOST} are the most"])


def _scale(found: Mapping[str, Tensor], rank: int) -> float:
    """alpha / rank; 1 without alpha."""
    return found[parts.ALPHA].item() / rank if parts.ALPHA in found else 1.0


def _factor(found: Mapping[str, Tensor], name: str, body: str) -> Tensor:
    """One of the two that a LoKr multiplies, itself a product or not."""
    if name in found:
        return found[name]
    if missing := [part for part in (f"{name}_a", f"{name}_b") if part not in found]:
        raise Misfit([f"{body} without its {name}, or {' and '.join(missing)}"])
    return found[f"{name}_a"] @ found[f"{name}_b"]


def _decomposed(change: Tensor, magnitude: Tensor, weight: Tensor) -> Tensor:
    """A DoRA's change: the changed weight brought to the magnitude, less the weight."""
    changed = weight + change
    by_columns = magnitude.ndim == 2 and magnitude.shape[0] == 1 != changed.shape[0]
    norm = changed.norm(dim=0 if by_columns else 1, keepdim=True)
    wanted = magnitude.reshape(norm.shape)
    return changed * torch.where(norm > 0, wanted / norm, torch.zeros_like(norm)) - weight


def _base_weight(module: Module, base: Mapping[str, Tensor] | None) -> Tensor:
    """The weight of a module in the base, its rows as in the file; float64."""
    if base is None:
        raise Misfit(
            [f"{module.body} is a DoRA, which is a change of the base's own weights: give --base FOLDER"]
        )
    if missing := [name for name in module.linears if f"{name}.weight" not in base]:
        raise Misfit([f"{missing[0]} is no linear of that base"])
    rows = torch.cat([base[f"{name}.weight"] for name in module.linears]).double()
    return swap_halves(rows) if module.swapped else rows
