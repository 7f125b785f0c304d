"""Look at LoRA files, convert, mix and shrink them, or take one from a tuned model.

python -m utils.lora inspect FILE [--base FOLDER]
python -m utils.lora convert IN OUT --to diffusers|kohya|reference [--fold-alpha]
python -m utils.lora convert IN OUT --to FORMAT --rank N [--base FOLDER]  # of a DoRA, LoHa, LoKr, full
python -m utils.lora merge A:0.7 B:0.4 OUT [--rank N]
python -m utils.lora resize IN OUT --rank N
python -m utils.lora extract BASE TUNED OUT --rank N

From the repository. Whose names a file has, its content tells. merge, resize and extract write a .safetensors
in diffusers' format; convert gives the others. An OUT that exists is kept, unless with --force.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import Parser, lora_option, path_option, whole
from utils.errors import UserError, run_cli
from utils.lora.files import LoraFile, own_metadata, read_contents, read_lora, write_lora
from utils.lora.summary import counted, summarise
from utils.names import read_number

if TYPE_CHECKING:
    from utils.lora.algebra import Approximation
    from utils.lora.linear import LinearLora
    from utils.lora.words import NewWord

_DTYPES = ("float32", "float16", "bfloat16")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; 0 as the exit status.

    Raises:
        UserError: for a file that is at fault.
    """
    args = _parser().parse_args(argv)
    if hasattr(args, "out"):
        _check_out(args.out, args.force, getattr(args, "to", "diffusers"))
    command: Callable[[argparse.Namespace], None] = args.command
    command(args)
    return 0


def _inspect(args: argparse.Namespace) -> None:
    file = read_lora(args.file, args.skip_text_encoder)
    summarise(file)
    if args.base:
        from utils.lora.shares import print_shares

        print_shares(file.loras, args.base)


def _convert(args: argparse.Namespace) -> None:
    from utils.lora.folding import fold_alpha
    from utils.lora.formats import format_named
    from utils.lora.header import TEXT_ENCODERS, noted, renewed, sizes
    from utils.lora.words import HEADER as WORDS

    layout = format_named(args.to)
    if args.fold_alpha and args.to != "diffusers":
        raise UserError(f"--fold-alpha: expected --to diffusers, found {args.to}, whose readers want alpha")
    if args.rank is not None:
        found, file = _approximated(args)
    else:
        found, file = None, read_lora(args.input, args.skip_text_encoder)
    loras, metadata = file.loras, file.metadata

    # What it is now, and what was done to it.
    loras = fold_alpha(loras) if args.fold_alpha else loras
    note = f"converted from {args.input.name} ({file.format}) to {args.to}"
    note += f", the nearest LoRA of rank {args.rank}" if found else ""
    metadata = {**renewed(metadata), **sizes(loras)} if found else metadata
    header = noted(metadata, note) if layout.safetensors else {}
    write_lora(args.out, loras, args.to, header, args.dtype, file.words)
    print(f"{args.out}: {len(loras)} linears, {args.to}")
    if found:
        _tell(found)
    if file.left:
        print(f"left out: {len(file.left)} tensors of a text encoder, as {file.left[0]}")
    for line in layout.warn(loras):
        print(line)
    lost = sorted(
        metadata.keys() - {"format", TEXT_ENCODERS} | {WORDS for word in file.words if word.spelled}
    )
    if lost and not layout.safetensors:
        print(f"a .pt has no header, so these are left out: {', '.join((*lost, 'history'))}")


def _approximated(args: argparse.Namespace) -> tuple[Approximation, LoraFile]:
    """The plain LoRA nearest to another adapter, and as a file."""
    from contextlib import nullcontext

    from utils.lora.base_weights import open_weights, parts_at
    from utils.lora.dense import nearest_loras
    from utils.lora.linear import Misfit
    from utils.lora.words import bundled

    contents, metadata = read_contents(args.input, args.skip_text_encoder)
    if not contents.strange():
        raise UserError(
            f"{args.input}: expected a DoRA, LoHa, LoKr or full difference for --rank, found a plain "
            "LoRA; resize lowers its rank"
        )
    with open_weights(args.base, parts_at(args.base)) if args.base else nullcontext() as base:
        try:
            found = nearest_loras(contents, metadata, args.rank, base)
            words = bundled(contents.bundled, metadata)
        except Misfit as misfit:
            raise UserError(
                f"{args.input}: expected an adapter that a LoRA can be near to, found: {misfit}"
            ) from None
    if not found.loras:
        raise UserError(f"{args.input}: expected an adapter that changes something, found none")
    was = f"{counted(contents.strange())}; {contents.format}"
    return found, LoraFile(found.loras, own_metadata(metadata), was, contents.left, words)


def _merge(args: argparse.Namespace) -> None:
    from utils.lora.algebra import merge, resize
    from utils.lora.header import merged as merged_header
    from utils.lora.header import noted
    from utils.lora.linear import Misfit
    from utils.lora.words import joined

    sources = args.inputs
    files = [read_lora(path, args.skip_text_encoder) for path, _ in sources]
    try:
        merged = merge([(file.loras, weight) for file, (_, weight) in zip(files, sources, strict=True)])
    except Misfit as misfit:
        paths = ", ".join(str(path) for path, _ in sources)
        raise UserError(f"{paths}: expected LoRAs for the same model, found: {misfit}") from None
    words = joined([(path, file.words) for file, (path, _) in zip(files, sources, strict=True)])
    names = [{"file": path.name, "weight": weight} for path, weight in sources]
    note = "merged from " + ", ".join(f"{path.name} at {weight:g}" for path, weight in sources)
    header = merged_header(files, [path.name for path, _ in sources], args.out.stem)
    metadata = {"sources": json.dumps(names), **header}
    if args.rank is None:
        _write(args, merged, noted(metadata, note), words=words)
    else:
        resized = resize(merged, args.rank)
        _write(args, resized.loras, noted(metadata, f"{note}, resized to rank {args.rank}"), resized, words)


def _resize(args: argparse.Namespace) -> None:
    from utils.lora.algebra import resize
    from utils.lora.calibration import KEY
    from utils.lora.header import noted, renewed, sizes

    file = read_lora(args.input, args.skip_text_encoder)
    resized = resize(file.loras, args.rank)
    # a calibration was measured on the LoRA as it was
    metadata = {key: text for key, text in renewed(file.metadata).items() if key != KEY}
    note = f"resized from {args.input.name} to rank {args.rank}"
    _write(args, resized.loras, noted(metadata | sizes(resized.loras), note), resized, file.words)


def _extract(args: argparse.Namespace) -> None:
    from utils.lora.algebra import extract
    from utils.lora.base_weights import open_weights, parts_at
    from utils.lora.header import architecture_at, modelspec, noted
    from utils.lora.linear import Misfit

    tuned = parts_at(args.tuned)
    parts = [part for part in parts_at(args.base) if part in tuned]
    with open_weights(args.base, parts) as before, open_weights(args.tuned, parts) as after:
        try:
            found = extract(before, after, args.rank)
        except Misfit as misfit:
            raise UserError(
                f"{args.tuned}: expected the same model as {args.base}, found: {misfit}"
            ) from None
    if not found.loras:
        raise UserError(f"{args.tuned}: expected linears that differ from those of {args.base}, found none")
    note = f"extracted from {args.tuned.name} less {args.base.name}, rank {args.rank}"
    _write(args, found.loras, noted(modelspec(args.out.stem, architecture_at(args.base)), note), found)


def _write(
    args: argparse.Namespace,
    loras: Mapping[str, LinearLora],
    metadata: Mapping[str, str],
    approximation: Approximation | None = None,
    words: Sequence[NewWord] = (),
) -> None:
    """Write a diffusers file, and tell what is in it."""
    write_lora(args.out, loras, "diffusers", metadata, args.dtype, words)
    print(
        f"{args.out}: {len(loras)} linears of rank {counted(Counter(lora.rank for lora in loras.values()))}"
    )
    if approximation:
        _tell(approximation)


def _tell(approximation: Approximation) -> None:
    print(f"energy kept: {approximation.energy:.4%} of all")
    for name, share in approximation.least.items():
        print(f"             {share:.4%} the least, {name}")
    if approximation.left:
        some = ", ".join(approximation.left[:3])
        print(f"left out, since no LoRA can hold them: {len(approximation.left)} other parameters, as {some}")


def _check_out(out: Path, force: bool, to: str) -> None:
    from utils.lora.formats import FORMATS, format_named

    if out.is_dir() or (out.exists() and not force):
        found = "a folder" if out.is_dir() else "one that exists; --force replaces it"
        raise UserError(f"{out}: expected the name of a new file, found {found}")
    layout = format_named(to)
    others = {suffix for each in FORMATS.values() for suffix in each.suffixes} - set(layout.suffixes)
    if out.suffix.lower() in others:  # readers elsewhere go by the suffix
        expected = out.with_suffix(layout.suffixes[0]).name
        raise UserError(
            f"{out}: expected a {layout.suffixes[0]} for format {to}, as {expected}, found {out.suffix}"
        )


def _weighted(text: str) -> tuple[Path, float]:
    """FILE:WEIGHT, or FILE alone for weight 1."""
    name, colon, number = text.rpartition(":")
    try:
        weight = read_number(number) if colon else 1.0
    except ValueError:
        return lora_option(text), 1.0
    if not math.isfinite(weight):
        raise UserError(f"{text}: expected a finite weight, found {number}")
    return lora_option(name if colon else text), weight


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m utils.lora",
        description=__doc__,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    inspect = add("inspect", _inspect, "what is in a file")
    inspect.add_argument("file", type=lora_option, metavar="FILE")
    inspect.add_argument(
        "--base", type=path_option, metavar="FOLDER", help="the base, for how much of it is changed"
    )
    convert = add(
        "convert", _convert, "the same LoRA in another format; of another adapter, the nearest LoRA"
    )
    convert.add_argument("input", type=lora_option, metavar="IN")
    merge = add("merge", _merge, "the weighted sum of LoRAs as one, exact without --rank")
    merge.add_argument("inputs", type=_weighted, nargs="+", metavar="FILE[:WEIGHT]")
    resize = add("resize", _resize, "the nearest LoRA of a lower rank")
    resize.add_argument("input", type=lora_option, metavar="IN")
    extract = add("extract", _extract, "the LoRA nearest to what a tuned model changed")
    extract.add_argument(
        "base", type=path_option, metavar="BASE", help="diffusers folder, pipeline or transformer"
    )
    extract.add_argument("tuned", type=path_option, metavar="TUNED", help="another, of the same model")
    _add_options(inspect, convert, merge, resize, extract)
    return parser


def _add_options(inspect: argparse.ArgumentParser, *writing: argparse.ArgumentParser) -> None:
    """The options; `writing` are convert, merge, resize and extract."""
    convert, merge, resize, extract = writing
    for sub in writing:
        sub.add_argument("out", type=path_option, metavar="OUT")
        sub.add_argument("--force", action="store_true", help="replace OUT if it exists")
        sub.add_argument(
            "--dtype", choices=_DTYPES, default="", help="of the matrices in OUT; else their own"
        )
    for sub in (inspect, convert, merge, resize):
        sub.add_argument(
            "--skip-text-encoder",
            action="store_true",
            help="leave out what is of a text encoder",
        )
    convert.add_argument("--to", required=True, metavar="FORMAT", help="diffusers, kohya or reference")
    convert.add_argument(
        "--fold-alpha", action="store_true", help="alpha / rank into the matrices, and no alpha in the file"
    )
    convert.add_argument(
        "--base", type=path_option, metavar="FOLDER", help="the base that a DoRA changes, diffusers folder"
    )
    for sub in (resize, extract, merge, convert):
        needed = sub in (resize, extract)
        sub.add_argument("--rank", type=whole(), required=needed, metavar="N", help="greatest rank")


if __name__ == "__main__":
    run_cli(main)
