"""bench/lora_peers.py with the tool that is always there: diffusers reads our files, and we read its."""

from __future__ import annotations

from bench.lora_peer_code import READS, WRITES, diffusers
from bench.lora_peers import LIMIT


def test_diffusers_reads_ours_and_we_read_its(tmp_path):
    rows = list(diffusers(None, tmp_path))
    assert {direction for direction, _, _ in rows} == {READS, WRITES}
    assert all(worst <= LIMIT for _, _, worst in rows), rows
