"""LoRAs as matrices: merged against summed changes, resized against a full SVD, a known change extracted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.mini_loras import assert_same, block_loras, change, forward, fresh, outputs, random_lora
from utils.errors import UserError
from utils.lora.algebra import change_norm, extract, merge, resize
from utils.lora.base_weights import open_weights
from utils.lora.files import write_lora
from utils.lora.linear import LinearLora, Misfit
from utils.lora.loading import load_lora
from utils.models.adapters import linear_layers


def some(seed: int, *names: str, rank: int = 3) -> dict[str, LinearLora]:
    generator = torch.Generator().manual_seed(seed)
    return {name: random_lora(7, 11, rank, 1.5, generator) for name in names}


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-8, rtol=1e-6)


# --- merge ---


def test_a_merge_is_the_weighted_sum():
    first, second, third = some(1, "x", "y"), some(2, "y", "z", rank=2), some(3, "y")
    merged = merge([(first, 0.7), (second, -0.4), (third, 0.0)])
    assert sorted(merged) == ["x", "y", "z"]
    close(change(merged["x"]), 0.7 * change(first["x"]))
    close(change(merged["y"]), 0.7 * change(first["y"]) - 0.4 * change(second["y"]))
    close(change(merged["z"]), -0.4 * change(second["z"]))
    assert (merged["y"].rank, merged["y"].alpha) == (8, 8.0)


def test_a_merge_in_the_model(mini_flux, tmp_path):
    """The two adapters together give what the merged one gives."""
    from tests.mini_loras import use_adapters

    transformer = fresh(mini_flux)
    loras = block_loras(transformer)
    first = {name: lora for name, lora in loras.items() if "single" not in name}
    second = {name: lora for name, lora in loras.items() if "attn" in name}
    merged = merge([(first, 0.7), (second, 0.4)])
    for name, each in (("first", first), ("second", second), ("merged", merged)):
        write_lora(tmp_path / name, each, "diffusers", {})
        load_lora(transformer, tmp_path / name, name)
    with use_adapters(transformer, {"first": 0.7, "second": 0.4}):
        together = forward(transformer)
    torch.testing.assert_close(outputs(transformer, "merged")[1], together, atol=1e-5, rtol=0)


def test_a_merge_of_half_precision_is_float32():
    lora = some(1, "x")["x"]
    half = LinearLora(lora.weight_a.bfloat16(), lora.weight_b.bfloat16(), lora.alpha)
    merged = merge([({"x": half}, 0.3)])["x"]
    assert merged.weight_b.dtype == torch.float32
    close(change(merged), 0.3 * change(half))


def test_a_merge_of_other_sizes():
    other = {"x": random_lora(7, 12, 1, 1.0, torch.Generator())}
    with pytest.raises(Misfit, match=r"x of shapes \[\(7, 11\), \(7, 12\)\]"):
        merge([(some(1, "x"), 1.0), (other, 1.0)])


# --- resize ---


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_resizing_is_the_svd_of_the_whole_change(rank):
    loras = some(4, "x", "y", rank=9)  # above the rank that 7 outputs can have
    resized = resize(loras, rank)
    kept, total, shares = 0.0, 0.0, {}
    for name, lora in loras.items():
        u, s, vt = torch.linalg.svd(change(lora), full_matrices=False)
        close(change(resized.loras[name]), u[:, :rank] * s[:rank] @ vt[:rank])
        assert resized.loras[name].rank == resized.loras[name].alpha == rank
        shares[name] = (s[:rank].square().sum() / s.square().sum()).item()
        kept, total = kept + s[:rank].square().sum().item(), total + s.square().sum().item()
    assert resized.energy == pytest.approx(kept / total)
    assert resized.least == pytest.approx(dict([min(shares.items(), key=lambda item: item[1])]))
    assert 0 < resized.energy < 1


def test_resizing_to_no_lower_rank_changes_nothing():
    loras = some(5, "x", "y")
    for rank in (3, 50):
        resized = resize(loras, rank)
        assert_same(resized.loras, loras)
        assert resized.energy == pytest.approx(1)


def test_resizing_nothing_and_zeros():
    lora = some(6, "x")["x"]
    zero = {"x": LinearLora(lora.weight_a, torch.zeros_like(lora.weight_b), 1.0)}
    resized = resize(zero, 2)
    assert (change(resized.loras["x"]) == 0).all()
    assert (resized.energy, resized.least) == (1.0, {"x": 1.0})
    assert resize({}, 2).least == {}


def test_a_negative_alpha():
    lora = some(7, "x")["x"]
    negative = {"x": LinearLora(lora.weight_a, lora.weight_b, -2.0)}
    u, s, vt = torch.linalg.svd(change(negative["x"]), full_matrices=False)
    close(change(resize(negative, 1).loras["x"]), u[:, :1] * s[:1] @ vt[:1])


def test_the_norm():
    lora = some(8, "x")["x"]
    assert change_norm(lora) == pytest.approx(torch.linalg.matrix_norm(change(lora)).item())


# --- extract ---


def test_a_known_change_is_found_again(mini_flux):
    """Its rank too, though more is allowed; weights in float32 round the change."""
    base, tuned = fresh(mini_flux), fresh(mini_flux)
    loras = block_loras(base)
    linears = linear_layers(tuned)
    for name, lora in loras.items():
        linears[name].weight.data += change(lora).float()
    found = extract(base.state_dict(), tuned.state_dict(), 4)
    assert found.loras.keys() == loras.keys()
    assert found.energy > 1 - 1e-9
    assert min(found.least.values()) > 1 - 1e-9
    assert found.left == ()
    for name, lora in found.loras.items():
        torch.testing.assert_close(change(lora), change(loras[name]), atol=1e-6, rtol=0)


def test_extraction_keeps_the_energy_it_says():
    generator = torch.Generator().manual_seed(1)
    for shape in ((9, 5), (5, 9)):
        before = {"x.weight": torch.randn(shape, generator=generator)}
        after = {"x.weight": torch.randn(shape, generator=generator)}
        delta = after["x.weight"].double() - before["x.weight"].double()
        u, s, vt = torch.linalg.svd(delta, full_matrices=False)
        found = extract(before, after, 2)
        torch.testing.assert_close(change(found.loras["x"]), u[:, :2] * s[:2] @ vt[:2], atol=1e-6, rtol=0)
        assert found.energy == pytest.approx((s[:2].square().sum() / s.square().sum()).item())


def test_extraction_tells_what_it_leaves():
    before = {"x.weight": torch.zeros(2, 2), "x.bias": torch.zeros(2), "y.weight": torch.zeros(2, 2)}
    after = {**before, "x.weight": torch.ones(2, 2), "x.bias": torch.ones(2)}
    found = extract(before, after, 2)
    assert found.left == ("x.bias",)
    assert list(found.loras) == ["x"]  # y did not change
    assert found.loras["x"].rank == 1


def test_models_that_are_not_the_same():
    before = {"x.weight": torch.zeros(2, 2), "y.weight": torch.zeros(2), "z.weight": torch.zeros(1, 1)}
    after = {"x.weight": torch.zeros(2, 3), "z.weight": torch.full((1, 1), torch.nan)}
    with pytest.raises(Misfit, match=r"y\.weight in one of the two alone") as caught:
        extract(before, after, 1)
    assert "x.weight of shapes (2, 2) and (2, 3)" in str(caught.value)
    assert "z.weight holds values that are not finite" in str(caught.value)


def test_weights_of_a_pipeline_and_in_several_files(mini_flux, tmp_path):
    whole = load_file(mini_flux / "transformer" / "diffusion_pytorch_model.safetensors")
    with open_weights(mini_flux) as weights:
        assert weights.keys() == whole.keys()
    names = list(whole)
    index = {}
    for number, part in enumerate((names[:20], names[20:])):
        save_file({name: whole[name] for name in part}, tmp_path / f"{number}.safetensors")
        index |= dict.fromkeys(part, f"{number}.safetensors")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    with open_weights(tmp_path) as weights:
        assert weights.keys() == whole.keys()
        assert all(torch.equal(weights[name], whole[name]) for name in names)


def spoiled(folder: Path, name: str, text: str) -> Path:
    (folder / f"diffusion_pytorch_model.safetensors{name}").write_text(text)
    return folder


def test_folders_without_weights(tmp_path):
    with pytest.raises(UserError, match=r"expected a folder with diffusion_pytorch_model\.safetensors"):
        open_weights(tmp_path)
    with pytest.raises(UserError, match="expected a transformer's weights"):
        open_weights(spoiled(tmp_path, "", "nothing"))
    for text in ("{", "[]", '{"weight_map": [1]}', '{"weight_map": {"x": 1}}'):
        with pytest.raises(UserError, match="expected JSON with a weight_map"):
            open_weights(spoiled(tmp_path, ".index.json", text))
    with pytest.raises(UserError, match="expected a transformer's weights"):
        open_weights(spoiled(tmp_path, ".index.json", '{"weight_map": {"x": "../gone.safetensors"}}'))
