"""Look at LoRA files, convert, mix and shrink them, or take one from a tuned model.

python -m utils.lora inspect FILE
python -m utils.lora convert IN OUT --to diffusers|kohya|reference
python -m utils.lora merge A:0.7 B:0.4 OUT [--rank N]
python -m utils.lora resize IN OUT --rank N
python -m utils.lora extract BASE TUNED OUT --rank N

From the repository. A file's format is found by its content. merge, resize and extract write a .safetensors
in diffusers' format; convert gives the others. An OUT that exists is kept, unless with --force.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import Parser, lora_option, path_option, whole
from utils.errors import UserError, run_cli
from utils.lora.files import read_lora, write_lora
from utils.names import read_number

if TYPE_CHECKING:
    from utils.lora.algebra import Approximation
    from utils.lora.files import LoraFile
    from utils.lora.linear import LinearLora

_HISTORY = "history"  # metadata key: what was done to the file, a line each


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; 0 as the exit status.

    Raises:
        UserError: for a file that is at fault.
    """
    args = _parser().parse_args(argv)
    if hasattr(args, "out"):
        _check_out(args.out, args.force)
    command: Callable[[argparse.Namespace], None] = args.command
    command(args)
    return 0


def _inspect(args: argparse.Namespace) -> None:
    from utils.lora.algebra import change_norm

    file = read_lora(args.file)
    loras = file.loras.values()
    norms = {name: change_norm(lora) for name, lora in file.loras.items()}
    greatest, least = max(norms, key=lambda name: norms[name]), min(norms, key=lambda name: norms[name])
    blocks = Counter(re.sub(r"\.\d+\..*", "", name) for name in norms)
    _print("format", file.format)
    _print("linears", f"{len(norms)}: {_counts(blocks)}")
    _print("ranks", _counts(Counter(lora.rank for lora in loras)))
    _print("alphas", _counts(Counter(f"{lora.alpha:g}" for lora in loras)))
    _print("dtypes", _counts(Counter(str(lora.weight_a.dtype).removeprefix("torch.") for lora in loras)))
    _print("norm", f"{math.hypot(*norms.values()):.4g} of alpha / rank B A, over all linears")
    _print("", f"{norms[greatest]:.4g} the greatest, {greatest}")
    _print("", f"{norms[least]:.4g} the least, {least}")
    for key, text in sorted((key, text) for key, text in file.metadata.items() if key != "format"):
        for number, line in enumerate(_readable(text).splitlines() or [""]):
            _print(key if number == 0 else "", line)


def _convert(args: argparse.Namespace) -> None:
    from utils.lora.formats import format_named

    layout, file = format_named(args.to), read_lora(args.input)
    metadata = _noted(file.metadata, f"converted from {args.input.name} ({file.format}) to {args.to}")
    write_lora(args.out, file.loras, args.to, metadata if layout.safetensors else {})
    print(f"{args.out}: {len(file.loras)} linears, {args.to}")
    lost = sorted(file.metadata.keys() - {"format"})
    if lost and not layout.safetensors:
        print(f"a .pt has no header, so these are left out: {', '.join(lost)}")


def _merge(args: argparse.Namespace) -> None:
    from utils.lora.algebra import merge, resize
    from utils.lora.linear import Misfit

    sources = args.inputs
    files = [read_lora(path) for path, _ in sources]
    try:
        merged = merge([(file.loras, weight) for file, (_, weight) in zip(files, sources, strict=True)])
    except Misfit as misfit:
        paths = ", ".join(str(path) for path, _ in sources)
        raise UserError(f"{paths}: expected LoRAs for the same model, found: {misfit}") from None
    names = [{"file": path.name, "weight": weight} for path, weight in sources]
    note = "merged from " + ", ".join(f"{path.name} at {weight:g}" for path, weight in sources)
    metadata = {"sources": json.dumps(names), **_common_base(files)}
    if args.rank is None:
        _write(args.out, merged, _noted(metadata, note))
    else:
        resized = resize(merged, args.rank)
        _write(args.out, resized.loras, _noted(metadata, f"{note}, resized to rank {args.rank}"), resized)


def _common_base(files: Sequence[LoraFile]) -> dict[str, str]:
    """What the header says of the base; raises `UserError` for LoRAs of different bases."""
    from utils.lora.metadata import BASE_HASH, BASE_MODEL

    recorded = {file.metadata[BASE_HASH]: file for file in files if BASE_HASH in file.metadata}
    if len(recorded) > 1:
        bases = ", ".join(f"{file.metadata.get(BASE_MODEL)} ({found})" for found, file in recorded.items())
        raise UserError(f"merge: expected LoRAs of one base, found {bases}")
    return {
        key: file.metadata[key]
        for file in recorded.values()
        for key in (BASE_MODEL, BASE_HASH)
        if key in file.metadata
    }


def _sizes(loras: Mapping[str, LinearLora]) -> dict[str, str]:
    """What the header says of rank and alpha, of the greatest rank there is."""
    greatest = max(loras.values(), key=lambda lora: lora.rank)
    rank, alpha = str(greatest.rank), f"{greatest.alpha:g}"
    return {"rank": rank, "alpha": alpha, "ss_network_dim": rank, "ss_network_alpha": alpha}


def _resize(args: argparse.Namespace) -> None:
    from utils.lora.algebra import resize
    from utils.lora.calibration import KEY

    file = read_lora(args.input)
    resized = resize(file.loras, args.rank)
    # a calibration was measured on the LoRA as it was
    metadata = {key: text for key, text in file.metadata.items() if key != KEY} | _sizes(resized.loras)
    note = f"resized from {args.input.name} to rank {args.rank}"
    _write(args.out, resized.loras, _noted(metadata, note), resized)


def _extract(args: argparse.Namespace) -> None:
    from utils.lora.algebra import extract, open_weights
    from utils.lora.linear import Misfit

    with open_weights(args.base) as before, open_weights(args.tuned) as after:
        try:
            found = extract(before, after, args.rank)
        except Misfit as misfit:
            raise UserError(
                f"{args.tuned}: expected the same model as {args.base}, found: {misfit}"
            ) from None
    if not found.loras:
        raise UserError(f"{args.tuned}: expected linears that differ from those of {args.base}, found none")
    note = f"extracted from {args.tuned.name} less {args.base.name}, rank {args.rank}"
    _write(args.out, found.loras, _noted({}, note), found)
    if found.left:
        some = ", ".join(found.left[:3])
        print(f"left out, since no LoRA can hold them: {len(found.left)} other parameters, as {some}")


def _write(
    out: Path,
    loras: Mapping[str, LinearLora],
    metadata: Mapping[str, str],
    approximation: Approximation | None = None,
) -> None:
    """Write a diffusers file, and tell what is in it."""
    write_lora(out, loras, "diffusers", metadata)
    print(f"{out}: {len(loras)} linears of rank {_counts(Counter(lora.rank for lora in loras.values()))}")
    if approximation:
        print(f"energy kept: {approximation.energy:.4%} of all")
        for name, share in approximation.least.items():
            print(f"             {share:.4%} the least, {name}")


def _noted(metadata: Mapping[str, str], what: str) -> dict[str, str]:
    """Metadata with what was done added to the file's history."""
    return {**metadata, _HISTORY: "\n".join(filter(None, [metadata.get(_HISTORY), what]))}


def _check_out(out: Path, force: bool) -> None:
    if out.is_dir() or (out.exists() and not force):
        found = "a folder" if out.is_dir() else "one that exists; --force replaces it"
        raise UserError(f"{out}: expected the name of a new file, found {found}")


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


def _counts(counter: Mapping[Any, int]) -> str:
    """ "16", or "4 (3 times), 16 (19 times)" where they differ."""
    if len(counter) == 1:
        return str(next(iter(counter)))
    return ", ".join(f"{value} ({count} times)" for value, count in counter.items())


def _readable(text: str) -> str:
    """A header's text; an object in JSON as a line for each key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict):
        return text
    return "\n".join(f"{key}: {json.dumps(each, ensure_ascii=False)}" for key, each in value.items())


def _print(label: str, text: str) -> None:
    # a header may hold anything, a terminal's control characters too
    print(f"{label:<12} {''.join(char if char.isprintable() else '?' for char in text)}".rstrip())


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
    convert = add("convert", _convert, "the same LoRA in another format, without loss")
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
    for sub in (convert, merge, resize, extract):
        sub.add_argument("out", type=path_option, metavar="OUT")
        sub.add_argument("--force", action="store_true", help="replace OUT if it exists")
    convert.add_argument("--to", required=True, metavar="FORMAT", help="diffusers, kohya or reference")
    for sub in (resize, extract, merge):
        sub.add_argument("--rank", type=whole(), required=sub is not merge, metavar="N", help="greatest rank")
    return parser


if __name__ == "__main__":
    run_cli(main)
