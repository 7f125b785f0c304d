"""How much YAML is read: no text of anyone's may cost more memory, time or stack than a config is worth."""

from pathlib import Path
from typing import Any

from yaml import YAMLError
from yaml.composer import Composer
from yaml.nodes import Node

MOST_BYTES = 1 << 20
"""Of a file or text."""
MOST_NODES = 20_000
"""Scalars, lists and mappings: so many prompts, a second to read."""
MOST_DEPTH = 30
"""Of lists and mappings within each other; a config has three."""


def read_bounded(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        YAMLError: it is larger than MOST_BYTES.
        UnicodeDecodeError, OSError: it is no text, or can't be read.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YAMLError(f"more than {MOST_BYTES} bytes")
    return content.decode("utf-8-sig")


class BoundedComposer(Composer):
    """A loader's part that reads no more than MOST_NODES and no deeper than MOST_DEPTH; its first base.

    Raises:
        YAMLError: for more nodes, and for lists and mappings that lie deeper within each other.
    """

    _depth = _nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node and what lies in it."""
        self._depth += 1
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise YAMLError(f"more than {MOST_NODES} values")
        if self._depth > MOST_DEPTH:
            raise YAMLError(f"lists or mappings in each other {self._depth} deep, {MOST_DEPTH} at most")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
