"""ai-toolkit's `datasets`, a list of folders, as options by sd-scripts' names."""

from __future__ import annotations

from typing import Any

from utils.data.foreign.rows import (
    SAME,
    Table,
    becomes,
    each,
    flag,
    idle,
    joint,
    options,
    refused,
    same,
    whole,
    written,
)
from utils.data.foreign.translation import CONFIG_KEYS, Translation, dataset_table, hoist, read_table

_IMAGES = "images are learned whole, each encoded once"
_MASKS = "the loss counts all of an image"
_CONTROL = "no other images go beside those that are learned"
_CAPTION = "captions are learned as they are written, beside [trigger], shuffling and dropping"
_VIDEO = "of video and sound"
_CACHE = "images and captions are encoded once; cache_folder keeps that on disk"


def _extension(value: Any) -> str:
    text = str(value)
    return text if not text or text.startswith(".") else f".{text}"


DATASET: Table = options(
    {
        "folder_path": joint(),
        "dataset_path": joint(),
        "resolution": joint(512),
        "buckets": joint(True),
        "trigger_word": joint(),
        "is_reg": becomes(
            "is_reg",
            flag,
            "images of the class, beside those of the subject in every step, not in turn with them",
        ),
        "caption_ext": becomes("caption_extension", _extension),
        "caption_type": becomes("caption_extension", _extension),
        "default_caption": same("class_tokens", why="the caption of images without a file"),
        "bucket_tolerance": becomes("bucket_reso_steps", whole, "of which sides are multiples", default=64),
        "num_repeats": becomes("num_repeats", whole),
        "shuffle_tokens": becomes(
            "shuffle_caption", flag, "keep_tokens and the trigger stay in front, where there they move"
        ),
        "token_dropout_rate": same("caption_tag_dropout_rate"),
        "caption_dropout_rate": same(
            "caption_dropout_rate", why="the caption is then empty, where there the trigger word stays"
        ),
        "keep_tokens": becomes("keep_tokens", whole),
        "flip_x": becomes("flip_aug", flag, "mirrored half of the time, where there each image comes twice"),
        "flip_y": refused("images are not turned upside down", False),
        "batch_size": refused("train.batch_size says it"),
        "type": refused("captioned images are learned", "image", "sd"),
        "scale": refused(_IMAGES, 1),
        **each(refused(_IMAGES, False), "random_scale random_crop square_crop standardize_images"),
        **each(refused(_IMAGES, []), "augments augmentations"),
        "shuffle_augmentations": idle("of augmentations, of which there are none"),
        **each(refused(_MASKS, False), "alpha_mask invert_mask"),
        "mask_path": refused(_MASKS),
        "mask_min_value": idle("of masks, of which there are none"),
        **each(refused("all images weigh the same", 1), "network_weight loss_multiplier"),
        "prior_reg": refused("prior: base is what there is of this", False),
        "guidance_type": idle("of guidance, which is off"),
        **each(
            refused(_CONTROL, ""),
            "control_path control_path_1 control_path_2 control_path_3 inpaint_path "
            "unconditional_path clip_image_path poi",
        ),
        **each(refused(_CONTROL, False), "control_from_same_folder clip_image_from_same_folder"),
        "controls": refused(_CONTROL, []),
        **each(refused(_CAPTION, []), "random_triggers replacements extra_values"),
        "use_short_captions": refused(_CAPTION, False),
        **each(
            idle("of control images, of which there are none"),
            "num_controls_from_same_folder control_transparent_color full_size_control_images "
            "clip_image_augmentations clip_image_shuffle_augmentations replay_transforms",
        ),
        "random_triggers_max": idle("of random triggers, of which there are none"),
        "num_frames": refused("images are learned, no video", 1),
        **each(
            idle(_VIDEO),
            "shrink_video_to_frames fps auto_frame_count trim_auto_frame_count_tail do_i2v do_audio "
            "audio_preserve_pitch audio_normalize cache_tensors_to_disk",
        ),
        **each(
            idle(_CACHE),
            "cache_latents cache_latents_to_disk cache_clip_vision_to_disk cache_text_embeddings "
            "load_image_when_caching_latents num_workers prefetch_factor cache_latents_num_workers "
            "debug fast_image_size",
        ),
        **each(idle("train says it"), "diff_output_preservation diff_output_preservation_class"),
    }
)


def read_datasets(found: Translation, listed: Any) -> None:
    """The folders, as sd-scripts' dataset TOML would have them; what all say alike becomes the config's."""
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed) or not listed:
        found.fault("datasets", "expected a list of folders, found none")
        return
    folders, sides, triggers = [], [], []
    for index, table in enumerate(listed):
        where = "datasets." if len(listed) == 1 else f"datasets {index + 1}."
        own = Translation(found.path, found.tool)
        given = read_table(own, DATASET, table, where)
        found.faults += own.faults
        found.lines += own.lines
        folder = given["folder_path"] or given["dataset_path"]
        if folder:
            found.say(f"{where}folder_path", folder, SAME, "image_dir")
        else:
            found.fault(f"{where}folder_path", "expected a folder of images, found none")
        triggers.append(given["trigger_word"])
        sides.append(_sides(found, f"{where}resolution", given["resolution"]))
        buckets = {"enable_bucket": bool(given["buckets"]), "bucket_no_upscale": bool(given["buckets"])}
        folders.append({"image_dir": str(folder), **buckets, **own.options})
    _triggers(found, triggers)

    # One value for all is the config's key, which the command line can change.
    for option in CONFIG_KEYS:
        values = [own[option] for own in folders if option in own]
        if len(values) == len(folders) and all(value == values[0] for value in values):
            hoist(found, option, values[0])
            folders = [{name: value for name, value in own.items() if name != option} for own in folders]
    if all(each == sides[0] for each in sides):
        found.values["resolution"] = max(sides[0])
        found.values["resolutions"] = sides[0] if len(sides[0]) > 1 else []
        found.datasets = lambda findings: {"datasets": [dataset_table(own) for own in folders]}
    else:
        found.datasets = lambda findings: {
            "datasets": [
                dataset_table({**own, "resolution": side})
                for own, each in zip(folders, sides, strict=True)
                for side in each
            ]
        }


def _sides(found: Translation, key: str, value: Any) -> list[int]:
    """The resolutions of a dataset: each image is learned at every one."""
    try:
        sides = [whole(each) for each in (value if isinstance(value, list) else [value])]
    except ValueError as error:
        found.fault(key, str(error))
        return [512]
    if not sides or min(sides) < 1:
        found.fault(key, f"expected sides of 1 or more, found {written(value)}")
        return [512]
    why = "each image at every one" if len(sides) > 1 else ""
    found.say(key, value, SAME, f"resolution{'s' if len(sides) > 1 else ''}={written(value)}", why)
    return sides


def _triggers(found: Translation, triggers: list[Any]) -> None:
    """One trigger word for all."""
    given = list(dict.fromkeys(map(str, filter(None, [found.values.get("trigger"), *triggers]))))
    if len(given) > 1:
        found.fault("datasets.trigger_word", f"expected one trigger word, found {', '.join(given)}")
    elif given:
        found.values["trigger"] = given[0]
        if triggers[0]:
            found.say("datasets.trigger_word", triggers[0], SAME, f"trigger={given[0]}")
