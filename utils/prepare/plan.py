"""What there is to do in a preparation: looked up before any model is loaded or any image decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from utils.data.caption_files import EXTENSIONS, METADATA
from utils.data.caption_metadata import read_text
from utils.data.findings import Findings, counted, some_of
from utils.errors import UserError
from utils.files import find_images, in_folder, one_form
from utils.names import is_name
from utils.prepare.lines import Line, read_lines
from utils.prepare.options import Options

MASKS = "masks"
"""The folder of masks in a dataset; each has its image's name."""
MARK = "prepared"
"""The keyword of the text in a PNG that says what it was made of, and how."""


@dataclass(frozen=True)
class Task:
    """What is to be done for one source.

    Attributes:
        source: its file.
        line: what the dataset says of it so far; new if it does not know it.
        digest: of the source's bytes.
        image: whether its image is to be made.
        caption: whether its caption is.
        tags: whether its tags are.
        written: "text" and "tags" that lie beside the source, as far as they are to be taken over.
    """

    source: Path
    line: Line
    digest: str
    image: bool
    caption: bool
    tags: bool
    written: Mapping[str, Any]

    def __str__(self) -> str:
        parts = {
            "image": self.image,
            "caption": self.caption or "text" in self.written,
            "tags": self.tags or "tags" in self.written,
        }
        return f"{self.source}: {', '.join(name for name, wanted in parts.items() if wanted)} to do"

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.image or self.caption or self.tags or self.written)


@dataclass(frozen=True)
class Plan:
    """The tasks of a preparation, and what is to be said before."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...]


def make_plan(options: Options) -> Plan:
    """Look at sources and dataset.

    Raises:
        UserError: no folder of images, a dataset that is none of ours, captions that can't be read, or images
            of other sources under the same names.
    """
    sources = find_images(options.folder)
    _check_target(options)
    lines, beside = read_lines(options.target / METADATA), read_lines(options.folder / METADATA)
    findings = Findings()
    by_stem = {Path(name).stem: line for name, line in lines.items() if "/" not in name}
    tasks = [
        _task(
            options,
            by_stem.get(stem) or Line.new(f"{stem}.png"),
            source,
            _written(source, beside.get(one_form(source.name)), findings),
            findings,
        )
        for stem, source in sources.items()
    ]
    findings.settle()
    there = {task.line.name for task in tasks}
    others = [name for name in lines if name not in there]
    notes = [f"{options.target}: {counted(len(others), 'image')} of no source in {options.folder} kept"]
    return Plan(tuple(tasks), tuple((notes if others else []) + _kept(options, tasks)))


def _check_target(options: Options) -> None:
    """Raise `UserError` for a dataset's folder that must not be written to."""
    target = options.target
    if not is_name(options.name):
        raise UserError(f"NAME: expected a name for a folder in {options.datasets}, found {options.name!r}")
    if target.resolve() == options.folder.resolve():
        raise UserError(f"{target}: expected another folder than that of the photographs, found the same")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: expected a folder, or none yet, found a file")
    if not target.is_dir() or (target / METADATA).is_file():
        return
    if found := sorted(path.name for path in target.iterdir() if path.name[0] != "." and path.name != MASKS):
        raise UserError(
            f"{target}: expected a new folder, or one with {METADATA}, found {some_of(found)}; "
            "take another NAME"
        )


def _task(options: Options, line: Line, source: Path, written: Mapping[str, Any], findings: Findings) -> Task:
    """What is missing of one source's image and words."""
    digest = sha256(source.read_bytes()).hexdigest()[:16]
    known = line.record.get("source", "")
    changed = bool(known) and known != digest
    if changed and line.record.get("from") != str(source):
        findings.faults.append(
            f"{options.target / line.name}: expected it of {source}, found it of {line.record.get('from')}; "
            "rename one, or take another NAME"
        )

    place = in_folder(options.target, line.name)
    image = changed or "images" in options.again or not place.is_file()
    if not image and not line.record and (mark := read_mark(place)):
        # a kill came between the image and its line
        image = mark != mark_of(options, digest)
        line.record |= {} if image else record_of(options, source, digest)
    if not image and options.background and line.record.get("image") == options.image_settings:
        image = not in_folder(options.target / MASKS, line.name).is_file()
    if image and not line.name.endswith(".png"):
        findings.faults.append(
            f"{options.target / line.name}: expected {Path(line.name).stem}.png, as what is made here; "
            "rename it, in the metadata too, or take another NAME"
        )
    new = {field: value for field, value in written.items() if not line.value(field)}
    wanted = {
        field: bool(tool) and field not in new and _is_wanted(options, line, field, again, changed)
        for field, tool, again in (("text", options.captioner, "captions"), ("tags", options.tagger, "tags"))
    }
    return Task(source, line, digest, image, wanted["text"], wanted["tags"], new)


def record_of(options: Options, source: Path, digest: str) -> dict[str, str]:
    """What a line says of how its image came about."""
    return {"from": str(source), "source": digest, "image": options.image_settings}


def mark_of(options: Options, digest: str) -> str:
    """What an image that is made here says of itself."""
    return f"{digest} {options.image_settings}"


def read_mark(place: Path) -> str:
    """What an image says of itself; "" if it was not made here."""
    with suppress(OSError, SyntaxError, ValueError), Image.open(place, formats=["PNG"]) as opened:
        return str(opened.info.get(MARK, ""))
    return ""


def _is_wanted(options: Options, line: Line, field: str, again: str, changed: bool) -> bool:
    """Whether words are to be made: there are none, or they are asked for, or of another image."""
    return may_be_made(options, line, field) and (
        not line.value(field) or line.is_edited(field) or changed or again in options.again
    )


def may_be_made(options: Options, line: Line, field: str) -> bool:
    """Whether a line's caption ("text") or tags are not somebody's own, or are asked for all the same."""
    return not line.is_edited(field) or "edited" in options.again


def _written(source: Path, line: Line | None, findings: Findings) -> dict[str, Any]:
    """What is said of a source in files beside it: "text" in one line, "tags"; as far as there is any.

    Args:
        source: the photograph.
        line: of its folder's metadata, if they name it.
        findings: get captions that can't be read.
    """
    files = [file for extension in EXTENSIONS if (file := source.with_suffix(extension)).is_file()]
    text = read_text(files[0], findings) or "" if files else str(line.value("text")) if line else ""
    written = {"text": " ".join(text.split()), "tags": line.value("tags") if line else []}
    return {field: value for field, value in written.items() if value}


def _kept(options: Options, tasks: list[Task]) -> list[str]:
    """What stays though it was made otherwise than is asked for now."""
    kept: Counter[tuple[str, str, str]] = Counter()
    for task in tasks:
        line = task.line
        made = line.record.get("image", "")
        if not task.image and made != options.image_settings:
            kept["image", f"by {made or 'somebody'}", "images"] += 1
        for field, thing, asked, wanted in (
            ("text", "caption", options.captioner and options.text_settings, task.caption),
            ("tags", "tag list", options.tagger and options.tags_settings, task.tags),
        ):
            if wanted or not asked or not line.value(field):
                continue
            by = line.record.get(f"{field}_by", "")
            if line.is_edited(field):
                kept[thing, "by somebody", "edited"] += 1
            elif by != asked:
                kept[thing, f"by {by}", "captions" if field == "text" else "tags"] += 1
    return [
        f"{counted(number, thing)} kept, made {made}; --again={again} makes them anew"
        for (thing, made, again), number in kept.items()
    ]
