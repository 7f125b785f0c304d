"""What other tools make of our LoRA files, and we of theirs, each by its own code out of a checkout.

A peer is a generator: it is given the checkout and an empty folder, and yields (direction, what, worst
relative difference of a linear's change of weight). Nothing of theirs is copied: their loaders run, on a
miniature FLUX.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench import lora_model as mini
from utils.lora.dense import nearest_loras
from utils.lora.files import read_contents, read_lora, write_lora
from utils.lora.folding import fold_alpha
from utils.lora.linear import LinearLora

Row = tuple[str, str, float]
READS, WRITES = "reads ours", "is read by us"


def sd_scripts(checkout: Path, here: Path) -> Iterator[Row]:
    """networks.lora_flux: merged into the original code's modules; a network of its own saved."""
    sys.path.append(str(checkout))
    from networks import lora_flux

    path, given = here / "x.safetensors", mini.loras(lambda name: name not in ("proj_out", "norm_out.linear"))
    write_lora(path, given, "kohya", {})
    flux = mini.original_tree()
    network, state = lora_flux.create_network_from_weights(1.0, str(path), None, [], flux, for_inference=True)
    network.merge_to([], flux, state, torch.float32, "cpu")
    merged = {name: module.weight.data for name, module in flux.named_modules() if hasattr(module, "weight")}
    yield READS, "kohya", mini.worst(mini.by_linear(merged), mini.changes(given))

    flux = mini.original_tree()
    network = lora_flux.LoRANetwork([], flux, lora_dim=4, alpha=2, module_class=lora_flux.LoRAInfModule)
    network.apply_to([], flux)
    for lora in network.unet_loras:
        torch.nn.init.normal_(lora.lora_up.weight)
    save_file(network.state_dict(), path)  # save_weights imports much of Stable Diffusion for its hashes
    theirs = {
        lora.lora_name.removeprefix("lora_unet_"): lora.get_weight().detach() for lora in network.unet_loras
    }
    yield WRITES, "its own, q, k and v as one", mini.worst(mini.by_linear(theirs), _ours(path))


def comfyui(checkout: Path, here: Path) -> Iterator[Row]:
    """comfy.lora: the patches it makes of a file, on weights of zeros."""
    sys.path.append(str(checkout))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_base

    class Model(comfy.model_base.Flux):
        """FLUX as its loader sees it: names, and three numbers of the config."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            sizes = {"depth": mini.BLOCKS, "depth_single_blocks": mini.BLOCKS, "hidden_size": mini.HIDDEN}
            self.model_config = SimpleNamespace(unet_config=sizes)
            self.diffusion_model = mini.original_tree()

    def read(path: Path) -> mini.Changes:
        model = Model()
        names = comfy.lora.model_lora_keys_unet(model, {})
        weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        patches = comfy.lora.load_lora(
            comfy.lora_convert.convert_lora(load_file(path)), names, log_missing=False
        )
        for key, adapter in patches.items():
            name, offset, function = (*key, None, None)[:3] if isinstance(key, tuple) else (key, None, None)
            patch = [(1.0, adapter, 1.0, offset, function)]
            weights[name] = comfy.lora.calculate_weight(patch, weights[name], name)
        module = {
            key.removeprefix("diffusion_model.").removesuffix(".weight"): each
            for key, each in weights.items()
        }
        return {name: each for name, each in mini.by_linear(module).items() if each.any()}

    given, path = mini.loras(), here / "x.safetensors"
    for what, loras in (
        ("diffusers", given),
        ("kohya", given),
        ("diffusers, alpha folded", fold_alpha(given)),
    ):
        write_lora(path, loras, what.partition(",")[0], {})
        yield READS, what, mini.worst(read(path), mini.changes(given))
    for what, tensors in _names_in_use().items():
        save_file(tensors, path)
        yield WRITES, what, mini.worst(read(path), _ours(path))


def _names_in_use() -> dict[str, dict[str, Tensor]]:
    """Files as ComfyUI, OneTrainer, SimpleTuner and others name their keys, q, k and v as one or not."""
    torch.manual_seed(2)
    flux = mini.original_tree()
    shapes = {name: each.weight.shape for name, each in flux.named_modules() if hasattr(each, "weight")}
    fused = {name: (torch.randn(3, width), torch.randn(out, 3), 2.0) for name, (out, width) in shapes.items()}
    single = {name: (lora.weight_a, lora.weight_b, lora.alpha) for name, lora in mini.loras().items()}
    flat_fused = {name.replace(".", "_"): each for name, each in fused.items()}
    flat = {name.replace(".", "_"): each for name, each in single.items()}

    def file(
        prefix: str, of: Mapping[str, tuple[Tensor, Tensor, float]], a: str, b: str
    ) -> dict[str, Tensor]:
        keys: dict[str, Tensor] = {}
        for name, (weight_a, weight_b, alpha) in of.items():
            stem = prefix + name
            keys |= {stem + a: weight_a, stem + b: weight_b, f"{stem}.alpha": torch.tensor(alpha)}
        return keys

    down, peft = (".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight")
    return {
        "diffusion_model., lora_down": file("diffusion_model.", fused, *down),
        "diffusion_model., lora_A": file("diffusion_model.", fused, *peft),
        "lora_unet_, final_layer too": file("lora_unet_", flat_fused, *down),
        "lora_unet_, lora_A": file("lora_unet_", flat_fused, *peft),
        "lora_transformer_": file("lora_transformer_", flat, *down),
        "lycoris_": file("lycoris_", flat, *down),
        "transformer., lora_down": file("transformer.", single, *down),
        "transformer., lora.down": file("transformer.", single, ".lora.down.weight", ".lora.up.weight"),
        "transformer., .default": file(
            "transformer.", single, ".lora_A.default.weight", ".lora_B.default.weight"
        ),
    }


def diffusers(checkout: Path | None, here: Path) -> Iterator[Row]:
    """FluxPipeline.load_lora_weights and save_lora_weights, of the installed version."""
    import diffusers as library
    from peft import LoraConfig, get_peft_model_state_dict

    def read(path: Path) -> mini.Changes:
        bare = dict.fromkeys(
            ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        )
        pipeline = library.FluxPipeline(transformer=mini.transformer(), **bare)
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="edit")
        found = _peft_changes(pipeline.transformer)
        pipeline.unload_lora_weights()
        return found

    path, given = here / "x.safetensors", mini.loras()
    double = mini.loras(lambda name: name.startswith("transformer_blocks"))
    large = mini.loras(mini.in_blocks, lambda number: 128, lambda number: 128.0) | mini.loras(
        lambda name: name == "proj_out", lambda number: 8, lambda number: 8.0
    )
    for what, loras, layout in (
        ("diffusers", given, "diffusers"),
        ("diffusers, alpha folded", fold_alpha(given), "diffusers"),
        ("diffusers, as extract writes above rank 64", large, "diffusers"),
        ("kohya, double blocks", double, "kohya"),
    ):
        write_lora(path, loras, layout, {})
        yield READS, what, mini.worst(read(path), mini.changes(loras))

    model = mini.transformer()
    names = [name for name in mini.linears() if mini.in_blocks(name)]
    for what, more in (
        ("LoraConfig in the header", {}),
        (
            "alpha_pattern, rank_pattern",
            {"alpha_pattern": {"attn.to_k": 3, "proj_out": 5}, "rank_pattern": {"to_q": 2}},
        ),
        ("use_rslora", {"use_rslora": True}),
    ):
        config = LoraConfig(r=4, lora_alpha=2, target_modules=names, init_lora_weights=False, **more)
        model.add_adapter(config, "edit")
        library.FluxPipeline.save_lora_weights(
            here / "theirs",
            transformer_lora_layers=get_peft_model_state_dict(model, adapter_name="edit"),
            transformer_lora_adapter_metadata=model.peft_config["edit"].to_dict(),
        )
        theirs = _peft_changes(model)
        model.delete_adapters("edit")
        yield WRITES, what, mini.worst(theirs, _ours(here / "theirs" / "pytorch_lora_weights.safetensors"))


def _peft_changes(model: Any) -> mini.Changes:
    return {
        name: layer.scaling["edit"]
        * layer.lora_B["edit"].weight.double()
        @ layer.lora_A["edit"].weight.double()
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A") and "edit" in layer.lora_A
    }


def authors(checkout: Path, here: Path) -> Iterator[Row]:
    """utils/lora.py of PairEdit, loaded strictly as its scripts do."""
    spec = importlib.util.spec_from_file_location("authors_lora", checkout / "utils" / "lora.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{checkout}/utils/lora.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = {name: size for name, size in mini.linears().items() if mini.in_attention(name)}

    def network() -> Any:
        return module.LoRANetwork(
            mini.tree(shapes, {r".*\.attn": mini.Attention}),
            rank=4,
            multiplier=1.0,
            alpha=1.0,
            train_method="full",
        )

    def said(of: Any) -> mini.Changes:
        names = {name.replace(".", "_"): name for name in shapes}
        return {
            names[lora.lora_name.removeprefix("lora_unet_")]: lora.scale
            * lora.lora_up.weight.detach().double()
            @ lora.lora_down.weight.detach().double()
            for lora in of.unet_loras
        }

    path = here / "x.pt"
    for alpha in (1.0, 16.0):
        given, theirs = _of_rank_4(alpha), network()
        write_lora(path, given, "reference", {})
        theirs.load_state_dict(torch.load(path, weights_only=True))
        yield READS, f"reference, trained with alpha {alpha:g}", mini.worst(said(theirs), mini.changes(given))
    theirs = network()
    for lora in theirs.unet_loras:
        torch.nn.init.normal_(lora.lora_up.weight)
    theirs.save_weights(str(path))
    yield WRITES, "its own .pt", mini.worst(said(theirs), _ours(path))


def _of_rank_4(alpha: float) -> dict[str, LinearLora]:
    return mini.loras(mini.in_attention, lambda number: 4, lambda number: alpha)


def xlabs(checkout: Path, here: Path) -> Iterator[Row]:
    """x-flux's attention processors, which read their own names alone."""
    sys.path.append(str(checkout))
    from src.flux.modules import layers

    state: dict[str, Tensor] = {}
    theirs: mini.Changes = {}
    for kind, processor, parts in (
        ("double", layers.DoubleStreamBlockLoraProcessor(mini.HIDDEN, 3), _XLABS_DOUBLE),
        ("single", layers.SingleStreamBlockLoraProcessor(mini.HIDDEN, 3), _XLABS_SINGLE),
    ):
        for name, names in parts.items():
            layer = getattr(processor, name)
            torch.nn.init.normal_(layer.up.weight)
            rows = (layer.up.weight.detach().double() @ layer.down.weight.detach().double()).chunk(len(names))
            theirs |= dict(zip(names, rows, strict=True))
        state |= {f"{kind}_blocks.0.processor.{key}": each for key, each in processor.state_dict().items()}
    save_file(state, here / "x.safetensors")
    yield WRITES, "its own", mini.worst(theirs, _ours(here / "x.safetensors"))


_DOUBLE, _SINGLE = "transformer_blocks.0.attn.", "single_transformer_blocks.0."
_XLABS_DOUBLE = {
    "qkv_lora1": [f"{_DOUBLE}to_{part}" for part in "qkv"],
    "qkv_lora2": [f"{_DOUBLE}add_{part}_proj" for part in "qkv"],
    "proj_lora1": [f"{_DOUBLE}to_out.0"],
    "proj_lora2": [f"{_DOUBLE}to_add_out"],
}
_XLABS_SINGLE = {
    "qkv_lora": [f"{_SINGLE}attn.to_{part}" for part in "qkv"],
    "proj_lora": [f"{_SINGLE}proj_out"],
}


def _ours(path: Path) -> mini.Changes:
    return mini.changes(read_lora(path).loras)


def ours_nearest(path: Path, base: Mapping[str, Tensor] | None) -> mini.Changes:
    """What we make of an adapter that is no plain LoRA, at full rank."""
    contents, metadata = read_contents(path)
    return mini.changes(nearest_loras(contents, metadata, 10_000, base).loras)


def lora_of(weight_a: Tensor, weight_b: Tensor, alpha: float) -> LinearLora:
    """A LoRA out of someone's tensors."""
    return LinearLora(weight_a.detach(), weight_b.detach(), alpha)
