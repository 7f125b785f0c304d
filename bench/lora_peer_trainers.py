"""As bench/lora_peer_code.py, of the trainers that hold the model in diffusers' names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bench import lora_model as mini
from bench.lora_peer_code import READS, WRITES, Row, lora_of, ours_nearest
from utils.lora.files import read_lora, write_lora
from utils.lora.folding import fold_alpha


def ai_toolkit(checkout: Path, here: Path) -> Iterator[Row]:
    """toolkit.lora_special: a network loaded and saved by its own methods."""
    sys.path.append(str(checkout))
    from toolkit.lora_special import LoRASpecialNetwork

    def network(rank: int) -> LoRASpecialNetwork:
        made = LoRASpecialNetwork(
            text_encoder=None,
            unet=mini.transformer(),
            lora_dim=rank,
            alpha=rank,
            train_text_encoder=False,
            is_flux=True,
            target_lin_modules=["FluxTransformer2DModel"],
            transformer_only=True,
        )
        for lora in made.unet_loras:
            made.add_module(lora.lora_name, lora)
        return made

    def said(of: LoRASpecialNetwork) -> mini.Changes:
        loras = {
            lora.lora_name.replace("$$", ".").removeprefix("transformer."): lora_of(
                lora.lora_down.weight, lora.lora_up.weight, float(lora.scale) * lora.lora_dim
            )
            for lora in of.unet_loras
        }
        return mini.changes(loras)

    path, given = here / "x.safetensors", fold_alpha(mini.loras(mini.in_blocks))
    write_lora(path, given, "diffusers", {})
    theirs = network(4)
    theirs.load_weights(str(path))
    yield READS, "diffusers, alpha folded", mini.worst(said(theirs), mini.changes(given))
    theirs = network(3)
    for lora in theirs.unet_loras:
        torch.nn.init.normal_(lora.lora_up.weight)
    theirs.save_weights(str(path), dtype=torch.float32)
    yield WRITES, "its own", mini.worst(said(theirs), mini.changes(read_lora(path).loras))


def onetrainer(checkout: Path, here: Path) -> Iterator[Row]:
    """modules.util.load_lora_util and convert_lora_util, with the names that its FluxModel declares."""
    sys.path.append(str(checkout))
    from modules.model.FluxModel import FluxModel
    from modules.util import convert_lora_util, load_lora_util

    def said(path: Path) -> mini.Changes:
        body = FluxModel.diffusers_to_original(None)
        state = load_lora_util.to_canonical(
            load_lora_util.normalize_various(load_file(path)),
            component="transformer",
            original_conversion=body,
            comfy_conversion=body,
            fusion_groups=FluxModel.fusion_groups(None),
            text_encoders=[],
            legacy_conversion=[("transformer", "lora_transformer"), ("bundle_emb", "bundle_emb")],
            kohya_conversion=body,
            module_names={"transformer": load_lora_util.lora_module_names(mini.transformer())},
        )
        groups = {
            f"{block}.{fused}": [f"{block}.{leaf}" for leaf in leaves]
            for where, leaves, fused, _ in FluxModel.fusion_groups(None)
            for block in (where.format(i=number) for number in range(mini.BLOCKS))
        }
        found: mini.Changes = {}
        for key in state:
            stem = key.removesuffix(".lora_down.weight")
            if stem == key:
                continue
            lora = lora_of(state[key], state[f"{stem}.lora_up.weight"], state[f"{stem}.alpha"].item())
            change, name = mini.changes({"x": lora})["x"], stem.removeprefix("transformer.")
            names = groups.get(name, [name])
            rows = change.split([mini.linears()[each][0] for each in names])
            found |= dict(zip(names, rows, strict=True))
        return {name: each for name, each in found.items() if each.any()}

    path, given = here / "x.safetensors", mini.loras()
    for what, loras in (
        ("diffusers", given),
        ("diffusers, alpha folded", fold_alpha(given)),
        ("kohya", given),
    ):
        write_lora(path, loras, what.partition(",")[0], {})
        yield READS, what, mini.worst(said(path), mini.changes(given))
    state: dict[str, torch.Tensor] = {}
    for name, lora in given.items():
        stem = f"transformer.{name}"
        state |= {f"{stem}.lora_down.weight": lora.weight_a, f"{stem}.lora_up.weight": lora.weight_b}
        state[f"{stem}.alpha"] = torch.tensor(lora.alpha)
    for what, convert in (
        ("its legacy, lora_transformer_", convert_lora_util.convert_to_mixture),
        ("its DIFFUSERS", convert_lora_util.convert_to_diffusers),
    ):
        save_file(convert(dict(state)), path)
        yield WRITES, what, mini.worst(mini.changes(given), mini.changes(read_lora(path).loras))


def lycoris(checkout: Path, here: Path) -> Iterator[Row]:
    """lycoris.create_lycoris: every algorithm that we make a LoRA of, by the outputs that it trains on."""
    sys.path.append(str(checkout))
    import lycoris as library

    path = here / "x.safetensors"
    flat = {name.replace(".", "_"): name for name in mini.linears()}
    library.LycorisNetwork.apply_preset(
        {"target_module": ["FluxTransformerBlock", "FluxSingleTransformerBlock"]}
    )
    for what, settings in (
        ("LoCon, a plain LoRA", {"algo": "lora"}),
        ("DoRA by rows", {"algo": "lora", "dora_wd": True, "wd_on_output": True}),
        ("DoRA by columns", {"algo": "lora", "dora_wd": True, "wd_on_output": False}),
        ("LoHa", {"algo": "loha"}),
        ("LoKr", {"algo": "lokr", "factor": 4}),
        ("LoKr, both factors products", {"algo": "lokr", "factor": 8, "decompose_both": True}),
        ("full", {"algo": "full"}),
    ):
        model = mini.transformer().double()
        modules = dict(model.named_modules())
        base = {f"{name}.weight": modules[name].weight.data for name in mini.linears()}
        network = library.create_lycoris(model, 1.0, linear_dim=2, linear_alpha=1, **settings)
        network.apply_to()
        network.double()
        generator = torch.Generator().manual_seed(3)
        for key, weight in network.named_parameters():
            if not key.endswith("dora_scale"):
                weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        network.save_weights(str(path), torch.float32, {})
        theirs = {}
        for lora in network.loras:
            name = flat[lora.lora_name.removeprefix("lycoris_")]
            if settings["algo"] == "full":  # it holds the tuned weight; its forward fails without the old one
                tuned = lora.weight.detach()
            else:
                columns = torch.eye(mini.linears()[name][1]).double()
                tuned = (modules[name](columns) - modules[name](torch.zeros_like(columns))).T.detach()
            theirs[name] = tuned - base[f"{name}.weight"]
        plain = settings == {"algo": "lora"}
        ours = mini.changes(read_lora(path).loras) if plain else ours_nearest(path, base)
        yield WRITES, what, mini.worst(theirs, ours)
