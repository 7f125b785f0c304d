"""The loop on a miniature FLUX: what it learns, writes, repeats bit for bit, and leaves behind."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import MINI_SEQUENCE_LENGTH
from tests.mini_loras import change
from tests.training.mini_runs import learn, lines, make_run, objective_of
from utils.config.load import read_config
from utils.config.runs import Run
from utils.config.schema import Config
from utils.flow.mixes import Mix
from utils.flow.passes import PairBatch
from utils.lora.files import read_lora, read_metadata
from utils.models.adapters import adapter_names, adapter_parameters
from utils.models.identity import base_hash
from utils.models.velocity import PromptedVelocity
from utils.records import read_record
from utils.training.batches import PairBatches
from utils.training.trainer import train


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path)


def test_writes_what_it_says_and_leaves_a_clean_base(run, mini_flux_loaded, pairs):
    base = mini_flux_loaded
    before = {name: parameter.clone() for name, parameter in base.transformer.named_parameters()}
    learn(run, base, pairs, objective_of(run))

    for step in (4, 6):
        assert run.weights_path(step).is_file()
        assert run.reference_path(step).is_file()
    assert len(list(run.folder.glob("*.safetensors"))) == 2
    assert read_config(run.config_path) == run.config
    assert [line["step"] for line in lines(run)] == [2, 4, 6]
    seconds = [line["seconds"] for line in lines(run)]
    assert list(run.folder.glob("tensorboard/events*"))
    record = read_record(run.record_path)
    assert (record.work, record.count) == ("training", 6)
    assert 0 < seconds[0] < seconds[1] < seconds[2] <= record.seconds + 0.001  # rounded to milliseconds

    assert adapter_names(base.transformer) == []
    after = dict(base.transformer.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_header_says_where_the_weights_come_from(run, mini_flux_loaded, pairs):
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    with safe_open(run.weights_path(), framework="pt") as file:
        metadata = file.metadata()
    learned_from = json.loads(metadata["learned_from"])
    assert [entry["pair"] for entry in learned_from] == ["p0", "p1"]
    assert len({entry[side] for entry in learned_from for side in ("source", "target")}) == 4
    assert (metadata["step"], metadata["method"], metadata["rank"]) == ("6", "train_image", "2")
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("2", "2")  # of the file
    assert metadata["alpha"] == "1.0"
    assert metadata["modelspec.title"] == run.name
    assert Config(**json.loads(metadata["config"])) == run.config
    assert metadata["base_hash"] == base_hash(mini_flux_loaded.transformer)
    assert json.loads(metadata["software"])["torch"] == torch.__version__.partition("+")[0]
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    for part in (
        metadata["base_hash"],
        run.weights_path().name,
        "pair: `p1`",
        "| `rank` | 2 |",
        "library_name: diffusers",
    ):
        assert part in card


def test_both_files_hold_the_trained_semantic_adapter(run, mini_flux_loaded, pairs):
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    ours, theirs = (read_lora(path).loras for path in (run.weights_path(), run.reference_path()))
    assert ours.keys() == theirs.keys()
    for name, lora in ours.items():
        assert torch.equal(change(lora), change(theirs[name]))  # 1 / 2 is folded in without rounding
        assert change(lora).any()


def test_same_seed_same_bits_whatever_the_global_state(tmp_path, mini_flux_loaded, pairs):
    weights = []
    for folder, global_seed, version in [("a", 1, 1), ("b", 2, 1), ("c", 1, 2)]:
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        run = make_run(tmp_path / folder, train_start=version)
        learn(run, mini_flux_loaded, pairs, objective_of(run))
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(load_file(run.weights_path()))
    first, same, other = weights
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


class Watched:
    """An objective whose content adapter is noted before every step."""

    def __init__(self, objective, losses: int | None = None) -> None:
        self.objective, self.count, self.content = objective, losses, []
        self.adapters, self.saved = objective.adapters, objective.saved

    def losses(self, model: PromptedVelocity, batch: PairBatch):
        content = adapter_parameters(model.base.transformer, "content")
        self.content.append([weight.detach().clone() for weight in content])
        for index, loss in enumerate(self.objective.losses(model, batch)):
            if index == self.count:
                return
            yield loss


@pytest.mark.parametrize("python_name", ["train_image", "train_image_fm", "train_image_wocfg"])
def test_the_semantic_loss_never_touches_the_content_adapter(tmp_path, mini_flux_loaded, pairs, python_name):
    seen = []
    for folder, losses in (("both", None), ("content", 1)):
        run = make_run(tmp_path / folder, python_name=python_name)
        watched = Watched(objective_of(run), losses)
        learn(run, mini_flux_loaded, pairs, watched)
        seen.append(watched.content)
    both, alone = seen
    assert len(both) == 6
    assert not torch.equal(both[0][1], both[-1][1])
    for left, right in zip(both, alone, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def test_losses_fall(tmp_path, mini_flux_loaded, pairs):
    run = make_run(tmp_path, train_iteration=60, save_per_steps=60, log_every=20, cfg_eta=1.0)
    learn(run, mini_flux_loaded, pairs[:1], objective_of(run))
    first, *_, last = lines(run)
    assert last["content"] < first["content"]
    assert last["semantic"] < first["semantic"]


def test_nothing_but_the_transformer_is_held_while_training(run, mini_flux_loaded, pairs):
    base, held = mini_flux_loaded, []
    embeds = {"": base.encode_prompts([""], MINI_SEQUENCE_LENGTH)}
    base.release_text_encoders()

    class Watched(Recorder):
        def losses(self, model, batch):
            held.append(set(base.parts))
            yield from super().losses(model, batch)

    train(run, base, PairBatches(base, pairs, run.config), Watched(), embeds)
    assert run.weights_path().is_file()
    assert held == [{"transformer", "scheduler"}] * run.config.train_iteration


def test_train_method_and_rank_reach_the_file(tmp_path, mini_flux_loaded, pairs):
    run = make_run(tmp_path, train_method="xattn", rank=3, alpha=2.0)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    saved = load_file(run.weights_path())
    assert all("add_" in key for key in saved)
    assert {tensor.shape[0] for key, tensor in saved.items() if key.endswith("lora_A.weight")} == {3}
    assert not [key for key in saved if key.endswith("alpha")]
    assert read_metadata(run.weights_path())["alpha"] == "2.0"


SEMANTIC = Mix({"semantic": 1.0}, train=("semantic",))


class Recorder:
    """An objective that writes down what it is given."""

    adapters = ("semantic",)
    saved = "semantic"

    def __init__(self, fail_at: int | None = None) -> None:
        self.seen: list[PairBatch] = []
        self.fail_at = fail_at

    def losses(self, model, batch):
        self.seen.append(batch)
        with model.adapters(SEMANTIC):
            loss = model(batch.source, batch.sigma).mean()
            yield {"only": loss * torch.nan if len(self.seen) == self.fail_at else loss}


def test_draws_cover_the_step_range_and_the_pairs(tmp_path, mini_flux_loaded, pairs):
    run = make_run(tmp_path, train_iteration=40, batch_size=3, start_step=5, end_step=8, log_every=40)
    recorder = Recorder()
    learn(run, mini_flux_loaded, pairs, recorder)
    allowed = mini_flux_loaded.sigmas(28, 4, 4)[5:9].tolist()
    sigmas = torch.cat([batch.sigma for batch in recorder.seen]).tolist()
    assert len(sigmas) == 120
    assert sorted(set(sigmas), reverse=True) == allowed
    latents = {
        tuple(mini_flux_loaded.encode_images(pixels[None]).flatten()[:3].tolist()): index
        for index, pair in enumerate(pairs)
        for pixels in (pair.source, pair.target)
    }
    indices = []
    for batch in recorder.seen:
        assert batch.noise.shape == batch.source.shape == (3, 16, 4, 4)
        for source, target in zip(batch.source, batch.target, strict=True):
            source_index = latents[tuple(source.flatten()[:3].tolist())]
            assert latents[tuple(target.flatten()[:3].tolist())] == source_index
            indices.append(source_index)
    assert 30 < sum(indices) < 90
    noise = torch.cat([batch.noise for batch in recorder.seen])
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert len({float(sample[0, 0, 0]) for sample in noise}) == 120


@pytest.mark.parametrize("log_every", [1, 2, 50])
def test_a_loss_that_is_not_finite_stops_and_names_its_step(tmp_path, mini_flux_loaded, pairs, log_every):
    run = make_run(tmp_path, train_iteration=12, save_per_steps=4, log_every=log_every)
    with pytest.raises(FloatingPointError, match=r"glasses.*only loss is nan at step 7"):
        learn(run, mini_flux_loaded, pairs, Recorder(fail_at=7))
    assert run.weights_path(4).is_file()
    assert not run.weights_path(8).exists()
    assert not run.weights_path().exists()
    assert adapter_names(mini_flux_loaded.transformer) == []


def test_log_lines_are_means_over_their_steps(tmp_path, mini_flux_loaded, pairs):
    each = make_run(tmp_path / "each", log_every=1)
    every_third = make_run(tmp_path / "third", log_every=3, save_per_steps=6)
    for run in (each, every_third):
        learn(run, mini_flux_loaded, pairs, objective_of(run))
    for name in ("content", "semantic"):
        values = [line[name] for line in lines(each)]
        expected = [sum(values[:3]) / 3, sum(values[3:]) / 3]
        assert [line[name] for line in lines(every_third)] == pytest.approx(expected)


def test_an_error_leaves_a_clean_base(run, mini_flux_loaded, pairs):
    class Broken(Recorder):
        def losses(self, model, batch):
            with model.adapters(SEMANTIC):
                yield {
                    "only": model(batch.source, batch.sigma)
                }  # no scalar: backward fails inside the context

    before = mini_flux_loaded.transformer.state_dict().keys()
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        learn(run, mini_flux_loaded, pairs, Broken())
    assert mini_flux_loaded.transformer.state_dict().keys() == before
    learn(run, mini_flux_loaded, pairs, objective_of(run))
