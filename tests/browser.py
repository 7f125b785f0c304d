"""A page as headless Chromium shows it: what its console said, what its pictures are, how wide it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
"""The browser's path; "" where there is none."""

# the page stands in a frame as wide as a phone or a desk, so that it is looked at as it was written
_FRAME = """<!doctype html><iframe src="{name}" width="{width}" height="900"></iframe><pre></pre><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const pictures = [...page.images].map(image => [image.alt, image.complete && image.naturalWidth > 0]);
  const seen = {{pictures, text: page.body.innerText, wide: page.documentElement.scrollWidth,
    paper: getComputedStyle(page.body).backgroundColor}};
  document.querySelector("pre").textContent = JSON.stringify(seen);
}});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What was seen of a page.

    Attributes:
        console: the lines of its console.
        pictures: of each its alternative text and whether it is shown, in order.
        text: what can be read.
        wide: pixels that the page takes from left to right.
        paper: its background colour.
    """

    console: list[str]
    pictures: list[tuple[str, bool]]
    text: str
    wide: int
    paper: str


def look(page: Path, width: int, dark: bool = False) -> Seen:
    """Open a local page in a frame of that width."""
    frame = page.with_name(f"frame_{page.name}")
    frame.write_text(_FRAME.format(name=page.name, width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000")
    report = ("--enable-logging=stderr", "--allow-file-access-from-files", "--dump-dom")
    command = [CHROMIUM, *quiet, *report, scheme, frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (seen,) = re.findall(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    content = json.loads(unescape(seen))
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    pictures = [(alt, shown) for alt, shown in content.pop("pictures")]
    return Seen(console=console, pictures=pictures, **content)
