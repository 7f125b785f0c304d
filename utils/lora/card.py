"""A trained LoRA's README.md: what it is, how to use it, what it was made of; and its way to the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from utils.config.runs import Run
from utils.config.schema import BASE, METHOD, SUBJECT, TRAINING, Config, groups
from utils.errors import UserError
from utils.files import write_atomically
from utils.lora.files import read_metadata
from utils.lora.metadata import BASE_FAMILY
from utils.machine import REPOSITORY
from utils.models.families import FAMILIES

TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
_EDIT = (
    "that makes one edit, by as much as its scale says: 0 leaves an image as it is, 1 is the edit that it\n"
    "was trained on, below 0 is the opposite."
)
_PURPOSES = {
    "train_subject": (
        "that draws a subject or a style, by as much as its scale says: 0 draws as the base does, 1 what it\n"
        "was trained on."
    ),
    "train_image_real": "that draws one photograph from any noise, at scale 1: a start for editing it.",
}


def write_card(run: Run) -> Path:
    """Write README.md beside a run's LoRA, of what the LoRA's header says; returns its path."""
    path = run.folder / "README.md"
    write_atomically(path, card(run.weights_path().name, read_metadata(run.weights_path())).encode())
    return path


def card(file: str, metadata: Mapping[str, str]) -> str:
    """The text of the card of a LoRA file with the header that `training_metadata` makes."""
    config, base = json.loads(metadata["config"]), metadata["base_model"]
    family = FAMILIES[metadata[f"ss_{BASE_FAMILY}"]]
    local = Path(base).is_dir() or (REPOSITORY / base).is_dir()  # the hub takes its own names alone
    data = ModelCardData(
        base_model=None if local else base,
        library_name="diffusers",
        tags=["lora", *family.tags, "image-editing", "pairedit"],
    )
    lists = [
        "- " + ", ".join(f"{key}: `{value}`" for key, value in entry.items())
        for entry in json.loads(metadata["learned_from"])
    ]
    settings = [name for group in (METHOD, TRAINING, BASE) for name in groups()[group] if name in config]
    plain = Config()
    settings += [
        name for name in groups()[SUBJECT] if config.get(name, getattr(plain, name)) != getattr(plain, name)
    ]
    software = ", ".join(f"{name} {version}" for name, version in json.loads(metadata["software"]).items())
    made = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        base_model=base,
        pipeline=family.pipeline,
        purpose=_PURPOSES.get(metadata["method"], _EDIT),
        base_hash=metadata["base_hash"],
        title=metadata["ss_output_name"],
        method=metadata["method"],
        about=metadata["about"],
        file=file,
        skips=" or ".join(map(str, config["skips"])),
        steps=config["num_inference_steps"],
        learned_from="\n".join(lists),
        settings="\n".join(f"| `{name}` | {config[name]} |" for name in settings),
        step=metadata["step"],
        date=metadata["date"],
        software=f"pairedit {metadata['pairedit_version']}, {software}",
    )
    return f"{str(made).rstrip()}\n"


def push_to_hub(run: Run) -> str:
    """Upload a trained run's LoRA, card and config to the hub's `push_to_hub`; returns the address.

    Raises:
        UserError: what the hub said; the files stay where they are.
    """
    from huggingface_hub import HfApi

    name = run.config.push_to_hub
    files = [run.weights_path().name, "README.md", "config.yaml"]
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=run.folder, allow_patterns=files))
    except Exception as error:  # of an HTTP client that is the hub library's own affair
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"push_to_hub: {name}: {reason}; the LoRA is in {run.folder}") from error
