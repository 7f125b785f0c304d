"""What says in words what an image shows: transformers' own classes, no code from a hub; or a fixed text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL import Image

from utils.errors import UserError, nearest
from utils.hub import from_folder, load_pretrained, model_folder
from utils.machine import resolve_device
from utils.prepare.options import Options, Tool

if TYPE_CHECKING:
    import torch

LONGEST = 256
"""Tokens of a caption."""
FLORENCE_TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
QUESTION = "Describe this image in one or two sentences. Say what is seen, not what is felt."
_SEEN = 768  # pixels of the longer side that captioners see; none of them uses more
_FILES = ("*.json", "*.txt", "*.jinja")

Captioner = Callable[[Image.Image], str]
"""An RGB image -> its caption, of one line."""


def florence(source: str, options: Options) -> Captioner:
    """Florence-2 (arXiv 2311.06242); the prompt is one of its tasks that give text."""
    task = options.prompt or FLORENCE_TASKS[1]
    if task not in FLORENCE_TASKS:
        raise UserError(
            f"--prompt: expected one of {', '.join(FLORENCE_TASKS)} for florence, "
            f"found {task}{nearest(task, FLORENCE_TASKS)}"
        )
    kinds = ("Florence2ForConditionalGeneration", "Florence2Processor")
    model, processor, send = _loaded(*kinds, source, options)

    def caption(image: Image.Image) -> str:
        inputs = send(processor(images=image, text=task, return_tensors="pt"))
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, num_beams=3, do_sample=False)
        return processor.batch_decode(tokens, skip_special_tokens=True)[0]

    return caption


def blip(source: str, options: Options) -> Captioner:
    """BLIP (arXiv 2201.12086); the prompt is how captions begin."""
    model, processor, send = _loaded("BlipForConditionalGeneration", "BlipProcessor", source, options)
    begins = {"text": options.prompt} if options.prompt else {}

    def caption(image: Image.Image) -> str:
        inputs = send(processor(images=image, return_tensors="pt", **begins))
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, num_beams=3, do_sample=False)
        return processor.batch_decode(tokens, skip_special_tokens=True)[0]

    return caption


def qwen(source: str, options: Options) -> Captioner:
    """Qwen's vision-language models (2-VL, 2.5-VL, 3-VL); the prompt is what they are asked."""
    model, processor, send = _loaded("AutoModelForImageTextToText", "AutoProcessor", source, options)
    asked = options.prompt or QUESTION

    def caption(image: Image.Image) -> str:
        said = [{"type": "image", "image": image}, {"type": "text", "text": asked}]
        inputs = send(
            processor.apply_chat_template(
                [{"role": "user", "content": said}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        return processor.batch_decode(answer, skip_special_tokens=True)[0]

    return caption


def fixed(source: str, options: Options) -> Captioner:
    """The prompt itself, for every image."""
    if not options.prompt.strip():
        raise UserError("--captioner=fixed: expected the caption as --prompt, found none")
    return lambda image: options.prompt


_FOLDER = "FOLDER, in transformers layout, or a hub id, such as"
CAPTIONERS: dict[str, Tool[Captioner]] = {
    "florence": Tool(
        "Florence-2 (MIT)",
        florence,
        weights="florence-community/Florence-2-base",
        setting=f"{_FOLDER} florence-community/Florence-2-base",
    ),
    "blip": Tool(
        "BLIP (BSD-3-Clause)",
        blip,
        weights="Salesforce/blip-image-captioning-base",
        setting=f"{_FOLDER} Salesforce/blip-image-captioning-base",
    ),
    "qwen": Tool(
        "Qwen's vision-language models (see each one's licence)",
        qwen,
        weights="Qwen/Qwen2-VL-2B-Instruct",
        setting=f"{_FOLDER} Qwen/Qwen2-VL-2B-Instruct (Apache-2.0)",
    ),
    "fixed": Tool("the text of --prompt, such as 'a photo of [trigger]'", fixed),
}
"""What `--captioner` may be; a script adds what the library may not know."""


def captioned(image: Image.Image, captioner: Captioner) -> str:
    """The caption of an image, in one line."""
    seen = image.copy()
    seen.thumbnail((_SEEN, _SEEN), Image.Resampling.LANCZOS)
    return " ".join(captioner(seen).split())


def _loaded(
    model: str, processor: str, source: str, options: Options
) -> tuple[Any, Any, Callable[[Any], Any]]:
    """A model and its processor, by the names of their classes, and what sends inputs to where it is."""
    folder = model_folder(source, _FILES)
    import torch

    device = resolve_device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    network = load_pretrained(model, folder, dtype=dtype).to(device)

    def send(inputs: Any) -> dict[str, torch.Tensor]:
        return dict(inputs.to(device, dtype))  # whole numbers keep their type

    return network, from_folder(processor, folder), send
