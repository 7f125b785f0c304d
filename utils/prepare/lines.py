"""The lines of a prepared dataset's metadata.jsonl, and which of their words people have changed.

    {"file_name": "a.png", "text": "a caption", "tags": ["one", "two"],
     "prepared": {"from": "photos/a.jpg", "source": HASH, "image": "crop=face ...",
                  "text": HASH, "text_by": "blip", "tags": HASH, "tags_by": "wd14"}}

What is known by no key here stays as it is. A caption that is not what its hash says was written by somebody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from utils.data.caption_metadata import read_entries
from utils.data.findings import Findings, some_of
from utils.errors import UserError
from utils.files import one_form, write_atomically

NAMES, TEXTS = ("file_name", "image_path"), ("caption", "text")
"""Keys of the image and of the caption, of which the first one there counts, as where datasets are read."""
PREPARED = "prepared"
FIELDS = ("text", "tags")


class Line:
    """What the metadata say of one image."""

    def __init__(self, content: dict[str, Any]) -> None:
        """Of an object as it stands in the file."""
        self.content = content
        record = content.get(PREPARED)
        self.record: dict[str, str] = dict(record) if isinstance(record, dict) else {}

    @classmethod
    def new(cls, name: str) -> Line:
        """Of an image of which nothing is said yet."""
        return cls({NAMES[0]: name, "text": "", "tags": []})

    @property
    def name(self) -> str:
        """Of the image's file, in NFC."""
        return one_form(next(self.content[key] for key in NAMES if key in self.content))

    def value(self, field: str) -> Any:
        """The caption ("text") or the tags ("tags"); empty if there are none."""
        return self.content.get(self._key(field)) or ("" if field == "text" else [])

    def is_edited(self, field: str) -> bool:
        """Whether the caption or the tags are there, and not what was made."""
        value = self.value(field)
        return bool(value) and hash_of(value) != self.record.get(field)

    def put(self, field: str, value: Any, by: str) -> None:
        """Set the caption or the tags as made by a tool; `by` "": as written by somebody."""
        self.content[self._key(field)] = value
        self.record[field] = hash_of(value) if by else ""
        self.record[f"{field}_by"] = by

    def as_json(self) -> str:
        """The line; all records have the same keys, as tables of it need."""
        keys = ("from", "source", "image", *(f"{field}{end}" for field in FIELDS for end in ("", "_by")))
        record = dict.fromkeys(keys, "") | self.record
        return json.dumps({**self.content, PREPARED: record}, ensure_ascii=False)

    def _key(self, field: str) -> str:
        if field != "text":
            return field
        return next((key for key in TEXTS if self.content.get(key) is not None), "text")


def read_lines(file: Path) -> dict[str, Line]:
    """Image name -> line, in the file's order; none where there is no file.

    Raises:
        UserError: faults of the file, as where datasets are read, and images named twice.
    """
    if not file.is_file() or not file.stat().st_size:
        return {}
    findings = Findings()
    read_entries(file, findings)
    findings.settle()
    text = file.read_text(encoding="utf-8-sig")
    lines = [Line(json.loads(line)) for line in text.split("\n") if line.strip()]
    found = {line.name: line for line in lines}
    if twice := [line.name for line in lines if found[line.name] is not line]:
        raise UserError(f"{file}: expected a line for each image, found more for {some_of(twice)}")
    return found


def write_lines(file: Path, lines: Iterable[Line]) -> None:
    """Write all lines, whole or not at all."""
    write_atomically(file, "".join(f"{line.as_json()}\n" for line in lines).encode())


def hash_of(value: Any) -> str:
    """Of a JSON value: 16 hex digits."""
    return sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]
