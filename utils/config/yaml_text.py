"""YAML whose scalars stay the text they are written as: 007 is 007, yes is yes, 1:30 is 1:30.

What a text means is for the line of its key to say (utils/config/values.py). So the loader only tells text
without quotes (`Plain`) from text in quotes (`str`), and refuses what would drop part of a text in silence.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

from yaml import BaseLoader
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode

from utils.config.yaml_bounds import BoundedComposer

_COMMENT = re.compile(r"[ \t]+(#[^\r\n\x00]*)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Plain(str):
    """A scalar without quotes, as it is written.

    Attributes:
        comment: the comment that ends its line, "" for none; "a #1 photo" is "a" with the comment "#1 photo".
    """

    comment: str

    def __new__(cls, text: str, comment: str = "") -> Plain:
        """`text` with the comment after it."""
        plain = super().__new__(cls, text)
        plain.comment = comment
        return plain

    def __repr__(self) -> str:
        """A number as it is written, for errors; anything else as a text."""
        return str(self) if _NUMBER.fullmatch(self) else super().__repr__()


class TextLoader(BoundedComposer, BaseLoader):
    """Mappings, lists, `Plain`, `str`, and None where nothing is written.

    Raises:
        yaml.YAMLError: for what is no YAML, too large or too deep, for a key given twice, and for tags,
            anchors and aliases: of a text such as "!wow", "&co" or "*star" they would leave nothing, or its
            second half.
    """

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node that has neither tag nor anchor."""
        event: Event = self.peek_event()
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        sign = "*" if isinstance(event, AliasEvent) else "!" if tag else "&" if anchor else ""
        if sign:
            raise ConstructorError(
                None,
                None,
                f"{sign}{str(anchor or tag).lstrip('!')}: quote a text that begins with {sign}",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: ScalarNode) -> Any:
        """A scalar's text, None where nothing is written."""
        text = super().construct_scalar(node)
        if node.style is not None:
            return text
        return Plain(text, _comment_after(node)) if text else None

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping from texts."""
        content: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(None, None, "expected a text as key", key.start_mark)
            if key.value in content:
                raise ConstructorError(None, None, f"found the key {key.value} twice", key.start_mark)
            content[str(key.value)] = self.construct_object(value, deep=deep)
        return content


def parse_yaml(text: str) -> Any:
    """The content of a YAML text; raises yaml.YAMLError, see `TextLoader`."""
    loader = TextLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _comment_after(node: ScalarNode) -> str:
    """The comment that follows a scalar on its line."""
    mark = node.end_mark
    found = _COMMENT.match(mark.buffer, mark.pointer) if isinstance(mark.buffer, str) else None
    return found.group(1) if found else ""
