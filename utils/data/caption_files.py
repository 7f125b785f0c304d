"""Images with captions in files: beside each image, or in one metadata file for many.

    a.png a.txt             a caption of its own, .txt or .caption
    metadata.jsonl          imagefolder's: {"file_name": "a.png", "text": "...", "tags": [...]} a line
    meta.json               sd-scripts': {"a": {"caption": "...", "tags": "..."}} by path or stem

Whatever is wrong is gathered in `Findings`, so that a folder's faults are told all at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from utils.data.caption_metadata import Entry, read_entries, read_text
from utils.data.findings import Findings, counted, some_of
from utils.errors import UserError, nearest
from utils.files import SUFFIXES, find_images, one_form

METADATA = "metadata.jsonl"
"""What holds a folder's captions, if it is there."""
EXTENSIONS = (".txt", ".caption")
"""Of caption files, where none is asked for."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image and what is said of it.

    Attributes:
        path: of the image.
        caption: as it is written, of one line or several; "" where there are tags alone.
        tags: follow the caption; each may hold several with separators between them.
        repeats: how often it comes in an epoch.
        is_reg: whether it shows the class, not the subject.
    """

    path: Path
    caption: str
    tags: tuple[str, ...] = ()
    repeats: int = 1
    is_reg: bool = False


def read_folder(
    folder: Path, findings: Findings, extension: str = "", class_tokens: str = "", unsaid: str = ""
) -> list[CaptionedImage]:
    """The images of a folder, in natural order, with captions from `METADATA` or from files beside them.

    Args:
        folder: images lie in it directly; those that `METADATA` names may lie deeper.
        findings: get what is wrong: no folder or image, an image without caption and a caption without image,
            captions in both kinds of files, and what can't be read.
        extension: of caption files; "": `EXTENSIONS`.
        class_tokens: the caption of images that have none.
        unsaid: the same where no image of the folder has one; if some have, the others lack theirs.
    """
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        findings.faults.append(
            f"{folder}: expected a folder of images, found none{nearest(folder.name, beside)}"
        )
        return []
    metadata, before = folder / METADATA, len(findings.faults)
    named = _captioned(metadata, folder, findings) if metadata.is_file() else []
    if len(findings.faults) > before:  # which images it would name is not known
        return []
    try:
        images = find_images(folder)
    except UserError as error:
        if not named or "found none" not in str(error):  # what is named lies deeper
            findings.faults.append(str(error))
        images = {}

    files = _caption_files(folder, extension)
    if not files and not named:
        class_tokens = class_tokens or unsaid
    if metadata.is_file():
        if files:
            names = some_of([path.name for paths in files.values() for path in paths])
            findings.faults.append(
                f"{folder}: expected captions in one place, found {METADATA} and {names}; move one elsewhere"
            )
        there = {image.path for image in named}
        rest = [path for path in images.values() if path not in there]
        return named + _with_class(folder, rest, METADATA, findings, class_tokens)
    return _beside(folder, images, files, findings, extension, class_tokens)


def read_metadata(file: Path, folder: Path | None, findings: Findings) -> list[CaptionedImage]:
    """The images that sd-scripts' metadata names, by path or stem, in its order.

    A path that is not absolute starts from `folder`, else from where the metadata lies, else from here; an
    absolute one that leads nowhere, as from another machine, is looked for in `folder` by its name.

    Args:
        file: .json, or .jsonl with a line for each image.
        folder: image_dir; None: not given.
        findings: get what is wrong: entries whose images are missing, twice or without caption; images of
            `folder` that no entry names are noted.
    """
    if not file.is_file():
        beside = [path.name for path in file.parent.glob("*.json*")]
        findings.faults.append(f"{file}: expected a metadata file, found none{nearest(file.name, beside)}")
        return []
    if folder is not None and not folder.is_dir():
        findings.faults.append(f"{folder}: expected a folder of images (image_dir), found none")
        return []
    images = _captioned(file, folder or file.parent, findings)
    if folder is not None and images:
        there = {image.path for image in images}
        unnamed = [path.name for path in _Images(folder).paths if path not in there]
        if unnamed:
            findings.notes.append(f"{file}: does not name {some_of(unnamed)} of {folder}; not learned")
    return images


# --- captions beside images ---


def _caption_files(folder: Path, extension: str) -> dict[str, list[Path]]:
    """Stem, in NFC, to the files that may be its caption."""
    wanted = (extension if extension.startswith(".") else f".{extension}",) if extension else EXTENSIONS
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        ending = next((each for each in wanted if path.name.lower().endswith(each.lower())), None)
        if ending is not None and path.name[0] != "." and path.is_file():
            files.setdefault(one_form(path.name[: -len(ending)]), []).append(path)
    return files


def _beside(
    folder: Path,
    images: dict[str, Path],
    files: dict[str, list[Path]],
    findings: Findings,
    extension: str,
    class_tokens: str,
) -> list[CaptionedImage]:
    """Images and the caption files of their stems."""
    found: dict[Path, CaptionedImage] = {}
    for stem, path in images.items():
        beside = files.get(stem, [])
        if len(beside) > 1:
            names = " and ".join(file.name for file in beside)
            findings.faults.append(
                f"{path}: expected one caption, found {names}; name one ending as caption_extension, or move "
                "the other file"
            )
        for file in beside[:1]:
            text = read_text(file, findings)
            if text is not None and not text.strip():
                findings.faults.append(f"{file}: expected a caption, found none in it")
            found[path] = CaptionedImage(path, (text or "").strip())

    if lone := [path.name for stem, paths in files.items() if stem not in images for path in paths]:
        findings.faults.append(
            f"{folder}: expected an image for each caption, found none for {some_of(lone)}"
        )
    rest = [path for path in images.values() if path not in found]
    ending = extension or " or ".join(EXTENSIONS)
    found |= {image.path: image for image in _with_class(folder, rest, ending, findings, class_tokens)}
    return [found[path] for path in images.values()]


def _with_class(
    folder: Path, images: list[Path], where: str, findings: Findings, class_tokens: str
) -> list[CaptionedImage]:
    """Images that have no caption, under `class_tokens`; a fault where there are none of these either."""
    if images and not class_tokens:
        names = some_of([path.name for path in images])
        findings.faults.append(
            f"{folder}: expected a caption for each image ({where}), or class_tokens, "
            f"found none for {counted(len(images), 'image')}: {names}"
        )
    return [CaptionedImage(path, class_tokens) for path in images]


# --- captions in a metadata file ---


def _captioned(file: Path, folder: Path, findings: Findings) -> list[CaptionedImage]:
    """The images that a metadata file names."""
    entries = read_entries(file, findings)
    places = _Places([folder, file.parent, Path()])
    found: dict[Path, Entry] = {}
    missing, twice, bare = [], [], []
    for entry in entries:
        paths = places.of(entry.name)
        if not paths:
            missing.append(entry.name)
        elif len(paths) > 1 or paths[0] in found:
            twice.append(f"{entry.name} ({', '.join(path.name for path in paths)})")
        else:
            found[paths[0]] = entry
            if not entry.caption and not entry.tags:
                bare.append(entry.name)

    if missing:
        findings.faults.append(
            f"{file}: expected the {counted(len(entries), 'image')} that it names in {folder}, "
            f"found {len(missing)} of them missing: {some_of(missing)}"
        )
    if twice:
        findings.faults.append(f"{file}: expected one image for each name, found {some_of(twice)}")
    if bare:
        findings.faults.append(
            f"{file}: expected a caption or tags for each image, found neither for {some_of(bare)}"
        )
    return [CaptionedImage(path, entry.caption, entry.tags) for path, entry in found.items()]


class _Places:
    """Where images may lie; each folder is listed once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._images: dict[Path, _Images] = {}

    def of(self, name: str) -> list[Path]:
        """The images that a path or stem means, from the first folder that has any."""
        if Path(name).is_absolute() or PureWindowsPath(name).is_absolute():
            if paths := self._in(Path(name).parent, Path(name).name):
                return paths
            return self._in(self.folders[0], PureWindowsPath(name).name)
        relative = Path(name.replace("\\", "/"))
        for folder in self.folders:
            if paths := self._in(folder / relative.parent, relative.name):
                return paths
        return []

    def _in(self, folder: Path, name: str) -> list[Path]:
        """The image of this name, or the images of this stem, in a folder."""
        if folder not in self._images:
            self._images[folder] = _Images(folder)
        images = self._images[folder]
        return images.names.get(one_form(name)) or images.stems.get(one_form(name), [])


class _Images:
    """What may be images in a folder, by name and by stem, both in NFC; none if it is not there."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        self.paths = [path for path in paths if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
        self.names: dict[str, list[Path]] = {}
        self.stems: dict[str, list[Path]] = {}
        for path in self.paths:
            self.names.setdefault(one_form(path.name), []).append(path)
            self.stems.setdefault(one_form(path.stem), []).append(path)
