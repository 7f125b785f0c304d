"""Prepare a dataset of captioned images: photographs cropped, cut out, captioned and tagged.

python prepare_script.py photographs astronaut --crop=face --background=person --captioner=fixed --prompt=Eve
python prepare_script.py FOLDER NAME --crop=face --captioner=florence --tagger=wd14 --dry-run

FOLDER is only read. Images, masks and metadata.jsonl, with captions and tags, go to datasets/NAME. Captions
beside the photographs (.txt, .caption, metadata.jsonl) are taken over. Again, the command does only what is
missing; what somebody has written or changed in metadata.jsonl stays.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from utils.arguments import Parser, names, number, path_option, whole
from utils.errors import UserError, run_cli
from utils.jobs.prepare import enter_config_folder
from utils.prepare.backgrounds import REMOVERS
from utils.prepare.captioners import CAPTIONERS
from utils.prepare.crops import CROPPERS
from utils.prepare.options import AGAIN, Options, Tool
from utils.prepare.run import prepare_dataset
from utils.prepare.sheet import check_sheet, draw_sheet
from utils.prepare.taggers import TAGGERS
from utils.report.figures import save_image


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare; 0 as the exit status, or 1 where a photograph could not be read."""
    captioners = _captioners()
    args = vars(_parser(captioners).parse_args(argv))
    options = Options(**{field.name: args[field.name] for field in fields(Options)})
    enter_config_folder()
    sheet: Path | None = args["sheet"]
    if sheet is not None:
        check_sheet(sheet, options)
    outcome = prepare_dataset(options, captioners, args["dry_run"])
    if sheet is not None and not args["dry_run"]:
        drawn = draw_sheet(options)
        if drawn is None:
            raise UserError(
                f"--sheet: expected images with their photographs, found none in {options.target}"
            )
        save_image(drawn, sheet)
        print(f"picture: {sheet}")
    return outcome.status


def _captioners() -> Mapping[str, Tool[Callable[..., str]]]:
    """The library's captioners, and the one of the small FLUX's world."""

    def probe(source: str, options: Options) -> Callable[..., str]:
        from tinyflux.describe import describe

        return describe

    return {**CAPTIONERS, "probe": Tool("drawn portraits of the small FLUX, by its probe", probe)}


def _parser(captioners: Mapping[str, Tool[Any]]) -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    add, own = parser.add_argument, Options(Path(), "")
    add("folder", type=path_option, metavar="FOLDER", help="the photographs")
    add("name", metavar="NAME", help="of the dataset")
    add("--datasets", type=path_option, default=own.datasets, metavar="FOLDER", help="where datasets lie")
    add("--dry-run", action="store_true", help="say what there is to do, do nothing")
    add("--sheet", type=path_option, metavar="FILE.png", help="also draw what became of the photographs")
    add(
        "--again",
        type=_again,
        default=own.again,
        metavar="LIST",
        help=f"make anew, out of {', '.join(AGAIN)}",
    )
    add("--device", default=own.device, help="of captioners: auto, cpu, mps, cuda or cuda:N")

    images = parser.add_argument_group("images").add_argument
    images("--crop", default=own.crop, metavar="NAME", help=_listed(CROPPERS))
    images(
        "--margin",
        type=_margin,
        default=own.margin,
        help="around it, in its longer side (of a face 0.6, of people 0.1)",
    )
    images(
        "--background",
        default=own.background,
        metavar="NAME",
        help=f"remove it; what stays: {_listed(REMOVERS)}",
    )
    images("--background-weights", default="", metavar="FILE", help="for those that need some")
    images("--fill", default=own.fill, metavar="COLOUR", help="in its place, a name or #rrggbb (%(default)s)")
    images(
        "--largest", type=whole(16), default=own.largest, metavar="PIXELS", help="longer side (%(default)s)"
    )
    images(
        "--smallest", type=whole(1), default=own.smallest, metavar="PIXELS", help="shorter side (%(default)s)"
    )

    words = parser.add_argument_group("captions and tags").add_argument
    words("--captioner", default=own.captioner, metavar="NAME", help=_listed(captioners))
    words("--captioner-weights", default="", metavar="WHERE", help="a folder or hub id, for its own")
    words("--prompt", default=own.prompt, help="what a captioner is asked; the caption itself of fixed")
    words("--tagger", default=own.tagger, metavar="NAME", help=_listed(TAGGERS))
    words("--tagger-weights", default="", metavar="WHERE", help="a folder or hub id, for its own")
    words("--threshold", type=number, default=own.threshold, help="probability of a tag (%(default)s)")
    words(
        "--character-threshold", type=number, default=own.character_threshold, help="of names (%(default)s)"
    )
    words("--first", type=_list, default=own.first, metavar="TAGS", help="in front, where they are found")
    words("--never", type=_list, default=own.never, metavar="TAGS", help="left out")
    words(
        "--replace",
        type=_replace,
        default=own.replace,
        metavar="OLD=NEW,...",
        help="whole words, in captions and tags that are made",
    )
    return parser


def _listed(tools: Mapping[str, Tool[Any]]) -> str:
    return "; ".join(f"{name}: {tool.says}" for name, tool in tools.items())


def _list(text: str) -> tuple[str, ...]:
    """Texts with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _again(text: str) -> tuple[str, ...]:
    return tuple(names(AGAIN)(text))


def _margin(text: str) -> float:
    value = number(text)
    if not 0 <= value <= 10:
        raise ArgumentTypeError(f"expected a number from 0 to 10, found {text!r}")
    return value


def _replace(text: str) -> tuple[tuple[str, str], ...]:
    """OLD=NEW with commas between."""
    pairs = [part.partition("=") for part in _list(text)]
    if wrong := [old + sign + new for old, sign, new in pairs if not sign or not old.strip()]:
        raise ArgumentTypeError(f"expected OLD=NEW, found {wrong[0]!r}")
    return tuple((old.strip(), new.strip()) for old, _, new in pairs)


if __name__ == "__main__":
    run_cli(main)
