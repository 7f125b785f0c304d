"""Files that say what is in images: plain texts, JSON, and JSON lines, read with what is wrong by line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.findings import Findings, counted, some_of
from utils.errors import nearest
from utils.names import check_text

_NAMES = ("file_name", "image_path")
"""What names the image in JSON lines: imagefolder's word, and sd-scripts'."""
_CAPTIONS = ("caption", "text")
"""What holds the caption: sd-scripts' word, and imagefolder's."""


@dataclass(frozen=True)
class Entry:
    """What a metadata file says of one image: its path or stem, caption and tags."""

    name: str
    caption: str
    tags: tuple[str, ...] = ()


def read_text(file: Path, findings: Findings) -> str | None:
    """A text file's content; None, with the fault found, if it is no UTF-8 or can't be read."""
    try:
        data = file.read_bytes()
    except OSError as error:
        findings.faults.append(f"{file}: expected a readable file, found {error.strerror or error}")
        return None
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        check_text(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        findings.faults.append(
            f"{file}: expected UTF-8, found the byte {data[error.start]:#04x} in line {line}"
        )
        return None
    except ValueError as error:
        findings.faults.append(f"{file}: expected text, but {error}")
        return None
    return text


def read_entries(file: Path, findings: Findings) -> list[Entry]:
    """What a .json or .jsonl file says, in its order; what is wrong with an entry names it or its line."""
    text = read_text(file, findings)
    if text is None:
        return []
    before = len(findings.faults)
    entries = _of_lines(file, text, findings) if file.suffix == ".jsonl" else _of_object(file, text, findings)
    if not entries and len(findings.faults) == before:
        findings.faults.append(f"{file}: expected what it says of images, found nothing in it")
    return entries


def _of_object(file: Path, text: str, findings: Findings) -> list[Entry]:
    """sd-scripts' metadata: one object, from path or stem to what is said."""
    content = _parsed(f"{file}", text, 1, findings)
    if content is None:
        return []
    if not isinstance(content, dict):
        findings.faults.append(
            f"{file}: expected an object from image names to captions, found {_kind(content)}"
        )
        return []
    found = [_entry(f"{file}: {name}", name, said, findings) for name, said in content.items()]
    return [entry for entry in found if entry is not None]


def _of_lines(file: Path, text: str, findings: Findings) -> list[Entry]:
    """JSON lines: an object a line, which names its image."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        said = _parsed(f"{file}", line, number, findings)
        if said is None:
            continue
        names = [said[key] for key in _NAMES if key in said] if isinstance(said, dict) else []
        if not names or not isinstance(names[0], str) or not names[0]:
            findings.faults.append(f"{where}: expected {' or '.join(_NAMES)}, found {_keys(said)}")
        else:
            found.append(_entry(where, names[0], said, findings))
    return [entry for entry in found if entry is not None]


def _entry(where: str, name: str, said: Any, findings: Findings) -> Entry | None:
    """Caption and tags of an image; None, with the fault found, for what are none."""
    if not isinstance(said, dict):
        findings.faults.append(f"{where}: expected an object with caption or tags, found {_kind(said)}")
        return None
    caption = next((said[key] for key in _CAPTIONS if said.get(key) is not None), "")
    tags = said.get("tags") or []
    listed = [tags] if isinstance(tags, str) else tags
    if not isinstance(caption, str):
        findings.faults.append(f"{where}: caption: expected a text, found {_kind(caption)}")
    elif not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        findings.faults.append(f"{where}: tags: expected a text or a list of texts, found {_kind(tags)}")
    else:
        stripped = tuple(tag.strip() for tag in listed if tag.strip())
        return Entry(name, caption.strip(), stripped)
    return None


def _parsed(where: str, text: str, line: int, findings: Findings) -> Any:
    """A JSON text's content; None, with the fault found, for what is none.

    Args:
        where: names the file.
        line: of the file, at which the text begins.
    """
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(found)
        if len(content) < len(found):
            names = [name for name, _ in found]
            twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return content

    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        findings.faults.append(
            f"{where}: expected JSON, found a fault in line {line + error.lineno - 1}, column {error.colno}: "
            f"{error.msg}"
        )
        return None
    except (RecursionError, ValueError) as error:
        findings.faults.append(f"{where}: expected JSON, found {error}")
        return None
    if twice:
        findings.faults.append(f"{where}: expected each name once, found {some_of(twice)} more often")
        return None
    if content is None:
        findings.faults.append(f"{where}: expected an object, found null")
    return content


def _keys(said: Any) -> str:
    if not isinstance(said, dict):
        return _kind(said)
    hints = filter(None, (nearest(name, said) for name in _NAMES))
    return f"{some_of(list(said)) or 'no keys'}{next(hints, '')}"


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, list):
        return f"a list of {counted(len(value), 'value')}"
    return "an object" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)[:80]
