"""The tensors of a LoRA file by module, whoever wrote it; and the plain LoRA of every linear in them.

Nothing is passed over: a key that has no place, or that gives a linear a second LoRA, is a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from utils.lora import kohya, parts
from utils.lora.fusing import split, swap_halves
from utils.lora.linear import LinearLora, Misfit
from utils.lora.names import (
    BUNDLED,
    DIFFUSERS_PREFIX,
    TRANSFORMER,
    UNET_PREFIX,
    Module,
    module_at,
    of_text_encoder,
    original_of,
    text_encoders,
)
from utils.lora.peft_config import PeftConfig


@dataclass
class Adapter:
    """What a file holds of one module.

    Attributes:
        module: its linears, by diffusers' names.
        kinds: of adapters that its parts are of.
        parts: tensor by part, as utils/lora/parts.py calls them, in a type that can be computed with.
        style: how its A and B are called, "lora_A", "lora_down" or "down".
    """

    module: Module
    kinds: set[str] = field(default_factory=set)
    parts: dict[str, Tensor] = field(default_factory=dict)
    style: str = ""

    @property
    def kind(self) -> str:
        """One of parts.KINDS."""
        return parts.kind_of(self.kinds)


@dataclass(frozen=True)
class Contents:
    """A file's tensors, sorted.

    Attributes:
        adapters: by the stem of their keys.
        left: keys of text encoders, left out on request.
        bundled: tensors of new words, by key.
    """

    adapters: dict[str, Adapter]
    left: tuple[str, ...]
    bundled: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """Of the pipeline, those that it has adapters of."""
        return list(dict.fromkeys(each.module.part for each in self.adapters.values()))

    @property
    def format(self) -> str:
        """A key of FORMATS where most of it is as we write it; or the names it has, in words."""
        modules = [each for each in self.adapters.values() if each.module.part == TRANSFORMER]
        seen = Counter(
            (each.module.prefix, each.module.original, each.style)
            for each in modules or self.adapters.values()
        )
        prefix, original, style = seen.most_common(1)[0][0]
        written = {
            (DIFFUSERS_PREFIX, False, "lora_A"): "diffusers",
            (UNET_PREFIX, True, "lora_down"): "kohya",
            (UNET_PREFIX, False, "lora_down"): "reference",
            **{(f"{encoder.part}.", False, "lora_A"): "diffusers" for encoder in text_encoders().values()},
            **{(each.prefixes[0], False, "lora_down"): "kohya" for each in text_encoders().values()},
        }
        whose = "the original code" if original else "diffusers"
        names = f"{whose}, {f'behind {prefix}' if prefix else 'without a prefix'}"
        return written.get((prefix, original, style), f"names of {names}, {style or 'no LoRA matrices'}")

    def strange(self) -> dict[str, int]:
        """Kinds of adapters that are no plain LoRA, and how many modules have one."""
        kinds = Counter(each.kind for each in self.adapters.values())
        return {kind: count for kind, count in kinds.items() if kind != parts.LORA}


def sort_tensors(tensors: Mapping[str, Tensor], skip_text_encoder: bool = False) -> Contents:
    """A file's tensors by module.

    Args:
        tensors: by key; every one must find its place.
        skip_text_encoder: leave a text encoder's out, rather than refuse them.

    Raises:
        Misfit: naming every key without a place, or whose place is taken.
    """
    adapters: dict[str, Adapter] = {}
    words: dict[str, Tensor] = {}
    left, faults = [], [] if tensors else ["no tensors"]
    whose = original_of(_sizes(tensors))
    for key, tensor in tensors.items():
        found = parts.part_of(key)
        module = module_at(found[0], whose) if found else None
        of_text = of_text_encoder(key) or (module is not None and module.part != TRANSFORMER)
        if of_text and skip_text_encoder:
            left.append(key)
            continue
        if key.startswith(BUNDLED):
            words[key] = parts.readable("", tensor)
            continue
        if found is None or module is None or (of_text and module.part == TRANSFORMER):
            part_of = " of a text encoder" if of_text else ""
            faults.append(f"{key} matches no linear{part_of} of FLUX")
            continue
        stem, kind, part = found
        adapter = adapters.setdefault(stem, Adapter(module))
        if part in adapter.parts:
            faults.append(f"{key} is a second {part} of {module.body}")
        adapter.kinds.add(kind)
        adapter.parts[part] = parts.readable(part, tensor)
        if part == parts.A:
            adapter.style = next(
                style for style in ("lora_A", "lora_down", "down") if style in key[len(stem) :]
            )

    if not adapters and not faults:
        faults.append("no LoRA but a text encoder's" if left else "new words alone")
    owners = Counter(name for adapter in adapters.values() for name in adapter.module.linears)
    faults += [f"{name} has {count} LoRAs in it" for name, count in owners.items() if count > 1]
    if faults:
        raise Misfit(faults)
    return Contents(adapters, tuple(left), words)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int] | None]:
    """Stem of a key -> (outputs, inputs) of its linear, as far as its tensors say."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in tensors.items():
        if found := parts.part_of(key):
            shapes.setdefault(found[0], {})[found[2]] = tuple(tensor.shape)
    return {stem: parts.size_of(own) for stem, own in shapes.items()}


def plain_loras(contents: Contents, metadata: Mapping[str, str]) -> dict[str, LinearLora]:
    """The LoRA of every linear in a file of plain LoRAs.

    Args:
        contents: of which `strange` finds nothing.
        metadata: of the file's header, which may hold alpha and the places of fused linears.

    Raises:
        Misfit: naming every module whose tensors make no LoRA.
    """
    notes = kohya.notes(metadata)
    configs = {part: PeftConfig.of(metadata, part) for part in contents.parts}
    if any(config.dora for config in configs.values()):
        raise Misfit(["use_dora in its header, and no magnitudes in its tensors"])
    loras: dict[str, LinearLora] = {}
    faults = []
    for stem, adapter in contents.adapters.items():
        module = adapter.module
        if fault := parts.lora_misfit(module.body, adapter.parts):
            faults.append(fault)
        elif adapter.parts[parts.B].shape[0] % sum(module.shares):
            rows = adapter.parts[parts.B].shape[0]
            faults.append(f"{module.body} of {rows} outputs where a multiple of {sum(module.shares)} fits")
        else:
            lora = module_lora(adapter, configs[module.part])
            whole = [lora] if len(module.linears) == 1 else split(lora, module.shares, notes.get(stem))
            loras |= {name: part for name, part in zip(module.linears, whole, strict=True) if part}
    if faults:
        raise Misfit(faults)
    return loras


def module_lora(adapter: Adapter, config: PeftConfig) -> LinearLora:
    """The LoRA of one module, its rows as diffusers has them."""
    weight_a, weight_b = adapter.parts[parts.A], adapter.parts[parts.B]
    rank = weight_a.shape[0]
    if parts.ALPHA in adapter.parts:
        alpha = adapter.parts[parts.ALPHA].item()
    else:
        alpha = config.alpha_of(adapter.module.body, rank)
    return LinearLora(weight_a, swap_halves(weight_b) if adapter.module.swapped else weight_b, alpha)
