"""What of captioned images and a config's words for them does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from utils.data.epochs import holds
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.training.captioned import CaptionedImages


def unfit_together(source: CaptionedImages) -> list[str]:
    """The faults that the dataset's files alone do not show, a line each."""
    from utils.data.decoding import read_size  # here, as Pillow takes a while

    config, faults = source.config, []
    word = config.class_word
    if word and not any(holds(words, word) for words in _words_of(source)):
        faults.append(f"class_word: expected a word of the captions, found {word!r} in none of {source.path}")
    if config.prior == "images" and not (source.class_images or word or config.class_prompt):
        faults.append(
            "class_word: expected what the subject is one of, since prior is images and "
            f"{source.path} has none of the class; found none"
        )
    for path in source.given_of_class:
        try:
            read_size(path)
        except UserError as error:
            faults.append(f"prior_folder: {error}")
    return faults


def _words_of(source: CaptionedImages) -> Iterator[str]:
    """All that may be said of each image of the subject."""
    for subset in (subset for dataset in source.datasets for subset in dataset.subsets):
        for image in subset.images:
            yield " ".join(
                (subset.rules.caption_prefix, image.caption, *image.tags, subset.rules.caption_suffix)
            )
