"""Other trainers' configs as people have them: taken, or refused with what to do."""

from pathlib import Path

import pytest

from tests.strangers import case
from utils.data.foreign.read import foreign_config, translate_file
from utils.errors import UserError
from utils.machine import REPOSITORY

CONFIGS = REPOSITORY / "train" / "config"
FLAGS = (
    "network_module = 'networks.lora_flux'\nnetwork_train_unet_only = true\nmodel_prediction_type = 'raw'\n"
    "pretrained_model_name_or_path = 'flux1-dev.safetensors'\ntrain_data_dir = 'images'\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "flags.toml"
    path.write_text(text)
    return path


@case("sd-scripts' flags in a TOML, in sections or not, are read the same")
def sections(folder: Path) -> None:
    plain = translate_file(written(folder, f"{FLAGS}network_dim = 8\n")).values
    assert translate_file(written(folder, f"{FLAGS}[network]\nnetwork_dim = 8\n")).values == plain
    assert plain["rank"] == 8


@case("every fault of a foreign config is in one line, its own keys and the command line's")
def faults(folder: Path) -> None:
    found = translate_file(written(folder, FLAGS + "loss_type = 'huber'\nnetwork_dims = 4\n"))
    with pytest.raises(UserError) as caught:
        foreign_config(found, ["optimiser=adamw"], CONFIGS)
    line = str(caught.value)
    assert "loss_type: expected l2, found huber" in line
    assert "unknown key 'network_dims' (did you mean 'network_dim'?)" in line
    assert "unknown key 'optimiser' (did you mean 'optimizer'?)" in line


@case("a checkpoint in one file is refused, unless the command line names a base")
def single_file(folder: Path) -> None:
    text = FLAGS.replace("flux1-dev.safetensors", "my_finetune.safetensors")
    found = translate_file(written(folder, text))
    with pytest.raises(UserError, match="expected a folder in diffusers layout, a hub id or flux1-dev"):
        foreign_config(found, [], CONFIGS)
    assert foreign_config(found, ["base=tinyflux"], CONFIGS).base == "tinyflux"


@case("a number or a switch that is none is refused with its key")
def wrong_values(folder: Path) -> None:
    found = translate_file(written(folder, FLAGS + "network_dim = 'big'\nshuffle_caption = 'maybe'\n"))
    texts = [text for text, _ in found.faults]
    assert any("network_dim: expected a whole number, found 'big'" in text for text in texts)
    assert any("shuffle_caption: expected true or false, found maybe" in text for text in texts)
