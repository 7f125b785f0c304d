"""What the images in a folder were made with: kept beside them, so that none of another LoRA joins them.

Skips, slider scales and seeds are in the images' names; all else that decides them is one for a whole folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from utils.code_hash import changed_files, images_code
from utils.config.runs import RealRun, Run
from utils.config.schema import Config, drawn_by
from utils.errors import UserError
from utils.files import move_aside, write_atomically
from utils.hashes import lora_hash, read_hashes

NAME = "made_with.json"
_OF_IMAGES = frozenset({"width", "height", "locality", "lora_skips"})
_OF_EDITS = frozenset({"inversion", "inversion_rule", "semantic_cfg_scale", "resize"})


def made_with(run: Run) -> dict[str, Any]:
    """What a run's images depend on: LoRAs, settings, prompts, photograph and code.

    Raises:
        UserError: a LoRA or photograph is missing or damaged; the run's own LoRA is not what was saved.
    """
    config, photograph = run.config, run.photograph if isinstance(run, RealRun) else None
    keys = drawn_by() | (_OF_EDITS if photograph else _OF_IMAGES)
    prompts = run.prompt.encode()
    if config.use_prompts_file:  # which may be gone when only measuring is left to do
        prompts = run.prompts_path.read_bytes() if run.prompts_path.is_file() else b""
    return {
        "loras": [_hash_as_saved(run, path) for path in loras_of(run)],
        "settings": {key: getattr(config, key) for key in sorted(keys)},
        "prompts": sha256(prompts).hexdigest()[:16],
        "photograph": sha256(photograph.read_bytes()).hexdigest()[:16] if photograph else "",
        "code": images_code(of_photographs=photograph is not None),
    }


def claim_images(run: Run) -> None:
    """Have a run's images folder for what it is to be made with now; others are moved aside, and said so."""
    folder, now = run.seeds_folder, made_with(run)
    if any(folder.glob("*/*_scale*.png")):
        then = read_made_with(folder)
        if reason := "; ".join(_differences(then, now, run)):
            print(f"{folder}: {reason}; moved to {move_aside(folder)}", flush=True)
        elif then is not None:
            now["code"] = then["code"]  # another's where other_code keeps its images
    write_atomically(folder / NAME, (json.dumps(now, indent=1) + "\n").encode())


def doubts(run: Run) -> list[str]:
    """What is to be told of a run's images before they are measured, a line each.

    Raises:
        UserError: they are of another LoRA than the run's present one.
    """
    folder, then = run.seeds_folder, read_made_with(run.seeds_folder)
    if not all(path.is_file() for path in loras_of(run)):
        return [f"{folder}: which LoRA they are of can't be checked, as it is not there"]
    now = made_with(run)
    if then is not None and then["loras"] != now["loras"]:
        raise UserError(
            f"{folder}: expected images of {_named(run)}, found images of another LoRA; generate them "
            f"anew, or measure these as they are: --images {folder}"
        )
    return [f"{folder}: {each}" for each in _differences(then, now, run)]


def read_made_with(folder: Path) -> dict[str, Any] | None:
    """What was kept beside images; None if nothing was, or it is damaged."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        kinds = {key: type(content[key]) for key in ("loras", "settings", "prompts", "photograph", "code")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return content if list(kinds.values()) == [list, dict, str, str, dict] else None


def _differences(then: dict[str, Any] | None, now: dict[str, Any], run: Run) -> Iterator[str]:
    """In words, what images were made with otherwise than now."""
    if then is None:
        yield "images of which it was not kept what LoRA made them"
        return
    if then["loras"] != now["loras"]:
        yield f"images of another LoRA than {_named(run)}"
    for key, value in now["settings"].items():
        made = then["settings"].get(key, getattr(Config(), key))  # a key may be newer than the images
        if made != value:
            yield f"images made with {key} {made}, now {value}"
    for key in ("prompts", "photograph"):
        if then[key] != now[key]:
            yield f"images of other {key}" if key == "prompts" else f"edits of another {key} of that name"
    if (files := changed_files(then["code"], now["code"])) and not run.config.other_code:
        yield f"images made by other code ({', '.join(files)})"


def _hash_as_saved(run: Run, path: Path) -> str:
    """The hash of a LoRA; raises `UserError` if the run's training saved another content under its name."""
    found = lora_hash(path)
    saved = read_hashes(run.saved_path) or {} if path.parent == run.folder else {}
    if saved.get(path.name, found) != found:
        raise UserError(
            f"{path}: expected the LoRA as training saved it, found it changed; train it anew, which moves "
            f"this aside, or apply it as it is: use_trained_lora_path=1 trained_lora_path={path}"
        )
    return found


def loras_of(run: Run) -> list[Path]:
    """The files that the run's images are made with."""
    if not isinstance(run, RealRun):
        return run.lora_paths
    own = run.lora_paths if run.config.inversion == "lora" else []
    return [Path(run.config.semantic_lora_path), *own]


def _named(run: Run) -> str:
    return " and ".join(map(str, loras_of(run)))
