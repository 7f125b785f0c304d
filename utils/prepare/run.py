"""Prepare a dataset: source by source the image, its mask, caption and tags, as far as they are missing."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from utils.data.caption_files import METADATA
from utils.data.findings import counted, some_of
from utils.errors import UserError
from utils.files import in_folder, remove_unfinished, write_atomically
from utils.machine import check_writable
from utils.prepare.backgrounds import REMOVERS, Remover, filled, read_colour
from utils.prepare.captioners import Captioner, captioned
from utils.prepare.crops import CROPPERS, Cropper
from utils.prepare.lines import FIELDS, Line, read_lines, write_lines
from utils.prepare.options import Options, Tool, load_tool, tool_of
from utils.prepare.plan import MARK, MASKS, Plan, Task, make_plan, mark_of, may_be_made, record_of
from utils.prepare.taggers import TAGGERS, Tagger
from utils.prepare.words import arranged, replaced

T = TypeVar("T")
_SECONDS = 1.0  # between writes of the metadata: all that a kill can lose


@dataclass
class Outcome:
    """How many sources' images are in the dataset, which were left out, and which could not be read."""

    images: int = 0
    left_out: int = 0
    unreadable: int = 0

    @property
    def status(self) -> int:
        """The exit status: 1 where something could not be read."""
        return 1 if self.unreadable else 0


class _LeftOut(Exception):  # noqa: N818 - no error: the image is not what was asked for
    """Says why an image is not taken."""


def prepare_dataset(
    options: Options,
    captioners: Mapping[str, Tool[Captioner]],
    dry_run: bool = False,
    say: Callable[[str], object] = print,
) -> Outcome:
    """Do what is missing of a dataset; what there is stays unless `options.again` asks for it anew.

    Args:
        options: what is asked.
        captioners: those that may be named.
        dry_run: only say what there is to do.
        say: gets a line for each source, and what is to be said before and after.

    Raises:
        UserError: what is asked can't be done; nothing is written then.
        KeyboardInterrupt: with how far it came; all until there is kept.
    """
    options = _settled(options, captioners)
    plan = make_plan(options)
    todo = [task for task in plan.tasks if task.any]
    for note in plan.notes:
        say(note)
    before = len(plan.tasks) - len(todo)
    say(f"{counted(len(plan.tasks), 'image')} in {options.folder}, {before} of them done before")
    if dry_run:
        for task in todo:
            say(str(task))
        return Outcome(before)

    preparation = _Preparation(options, plan, captioners, say)
    check_writable(options.target)
    lock = FileLock(options.target / ".prepare.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{options.target}: expected it free, found another process preparing it") from None
    try:
        remove_unfinished(options.target)
        return preparation.run(todo)
    finally:
        lock.release()


def _settled(options: Options, captioners: Mapping[str, Tool[Captioner]]) -> Options:
    """The options with the cropper's own margin, if none is asked for.

    Raises:
        UserError: unknown names, missing packages, and a colour that is none.
    """
    read_colour(options.fill)
    if options.crop:
        tool_of("crop", CROPPERS, options.crop)
        if options.margin is None:
            options = replace(options, margin=CROPPERS[options.crop].margin)
    if options.background:
        tool_of("background", REMOVERS, options.background)
    if options.captioner:
        tool_of("captioner", captioners, options.captioner)
    if options.tagger:
        tool_of("tagger", TAGGERS, options.tagger)
    return options


class _Preparation:
    """The tools of a preparation, loaded as far as its tasks need them, and the lines it writes."""

    def __init__(
        self,
        options: Options,
        plan: Plan,
        captioners: Mapping[str, Tool[Captioner]],
        say: Callable[[str], object],
    ) -> None:
        self.options, self.say = options, say
        self.made: dict[str, Line] = {}  # and not yet written
        self.captioners = captioners
        self.colour = read_colour(options.fill)
        self.file = options.target / METADATA
        self.outcome = Outcome(len(plan.tasks) - sum(task.any for task in plan.tasks))
        self._written = 0.0
        self._load([task for task in plan.tasks if task.any])

    def run(self, todo: list[Task]) -> Outcome:
        """Do the tasks, one after the other."""
        if not self.file.exists():  # from now on the folder is ours
            write_atomically(self.file, b"")
        done = 0
        try:
            for task in todo:
                self._do(task)
                done += 1
                if time.monotonic() - self._written > _SECONDS:
                    self._write()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{done} of {len(todo)} done; the same command does the rest") from None
        finally:
            self._write()
        self._close()
        return self.outcome

    def _load(self, todo: list[Task]) -> None:
        """The tools that the tasks need."""
        options = self.options

        def load(
            wanted: bool, option: str, tools: Mapping[str, Tool[T]], name: str, weights: str
        ) -> T | None:
            return load_tool(option, tools, name, weights, options) if wanted and name else None

        images = any(task.image for task in todo)
        captions, tags = any(task.caption for task in todo), any(task.tags for task in todo)
        weights = options.background_weights
        self.cropper: Cropper | None = load(images, "crop", CROPPERS, options.crop, "")
        self.remover: Remover | None = load(images, "background", REMOVERS, options.background, weights)
        self.captioner: Captioner | None = load(
            captions, "captioner", self.captioners, options.captioner, options.captioner_weights
        )
        self.tagger: Tagger | None = load(tags, "tagger", TAGGERS, options.tagger, options.tagger_weights)

    def _do(self, task: Task) -> None:
        """One source, and its line on the terminal."""
        # as it stands by now: somebody may write captions while others are made
        line = read_lines(self.file).get(task.line.name, task.line)
        try:
            image, said = self._image(task, line)
        except UserError as error:  # of one file: the others go on
            self.outcome.unreadable += 1
            self.say(f"{task.source.name}: left out: {error}")
            return
        except _LeftOut as reason:
            self.outcome.left_out += 1
            self.say(f"{task.source.name}: left out: {reason}")
            return
        self._words(task, line, image)
        self.made[line.name] = line
        self.outcome.images += 1
        words = "; ".join(part for part in (line.value("text"), ", ".join(line.value("tags"))) if part)
        self.say(f"{task.source.name}: {image.width} x {image.height}{said}{f': {words}' if words else ''}")

    def _image(self, task: Task, line: Line) -> tuple[Image.Image, str]:
        """The dataset's image of a source, made if it is to be, and what is to be said of it."""
        place = in_folder(self.options.target, line.name)
        if not task.image:
            return _read(place), ""
        image, said = self._cropped(_read(task.source))
        mask = self.remover(image) if self.remover else None

        # the mask first: where there is an image, its mask is
        mask_place = self.options.target / MASKS / place.name
        if mask is not None:
            write_atomically(mask_place, _png(mask))
            image = filled(image, mask, self.colour)
        else:
            mask_place.unlink(missing_ok=True)
        write_atomically(place, _png(image, mark_of(self.options, task.digest)))
        line.record |= record_of(self.options, task.source, task.digest)
        return image, said

    def _cropped(self, image: Image.Image) -> tuple[Image.Image, str]:
        """The part of an image that is wanted, in the size that is wanted, and what is to be said of it."""
        options, said = self.options, ""
        if self.cropper is not None:
            crop = self.cropper(image)
            if crop is None:
                raise _LeftOut(f"no {options.crop} found")
            image, said = image.crop(crop.box), f", {crop.note}" if crop.note else ""
        if min(image.size) < options.smallest:
            raise _LeftOut(f"{image.width} x {image.height}, smaller than {options.smallest}")
        if max(image.size) > options.largest:
            image.thumbnail((options.largest, options.largest), Image.Resampling.LANCZOS)
        return image, said

    def _words(self, task: Task, line: Line, image: Image.Image) -> None:
        """Put caption and tags into a task's line, as far as they are to be made."""
        options = self.options
        for field, value in task.written.items():
            if not line.value(field):
                line.put(field, value, by="")
        if task.caption and self.captioner is not None and may_be_made(options, line, "text"):
            said = replaced(captioned(image, self.captioner), options.replace)
            line.put("text", said, options.text_settings)
        if task.tags and self.tagger is not None and may_be_made(options, line, "tags"):
            found = arranged(self.tagger(image), options.first, options.never, options.replace)
            line.put("tags", list(found), options.tags_settings)

    def _write(self) -> None:
        """Put what was made into the metadata, whatever somebody has changed in them meanwhile."""
        write_lines(self.file, (read_lines(self.file) | self.made).values())
        self.made.clear()
        self._written = time.monotonic()

    def _close(self) -> None:
        """Say what became of it all, and which images nothing is said of."""
        outcome = self.outcome
        parts = [counted(outcome.images, "image")]
        parts += [f"{outcome.left_out} left out"] if outcome.left_out else []
        parts += [f"{outcome.unreadable} not readable"] if outcome.unreadable else []
        self.say(f"{self.options.target}: {', '.join(parts)}")
        lines = read_lines(self.file)
        if bare := [name for name, line in lines.items() if not any(map(line.value, FIELDS))]:
            self.say(
                f"without caption and tags, so not ready to be learned: {some_of(bare)}; "
                f"--captioner or --tagger makes some, or write them in {self.file}"
            )


def _read(path: Path) -> Image.Image:
    """An image as the project reads any."""
    from utils.data.pixels import read_rgb  # torch comes with it

    return read_rgb(path)


def _png(image: Image.Image, mark: str = "") -> bytes:
    buffer, texts = io.BytesIO(), PngInfo()
    if mark:
        texts.add_text(MARK, mark)
    image.save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()
