"""What `bench` can be told; read by the command, which has no settings, and by the measuring process."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

ITEMS = ("steps", "append", "http", "starts", "takeover", "frames", "compaction", "context", "recall")
SIZES = {
    "quick": "fewer rounds: a few minutes",
    "full": "a million frames for compaction, a million units for recall",
    "tiny": argparse.SUPPRESS,  # whether it still runs; the figures mean nothing
}


def add(parser: argparse.ArgumentParser) -> None:
    for name, words in SIZES.items():
        parser.add_argument(f"--{name}", action="store_true", help=words)
    parser.add_argument("--only", action="append", choices=ITEMS, help="this item alone; may be repeated")


def arguments(given: Mapping[str, Any]) -> list[str]:
    """The same options as words, for the measuring process."""
    return [f"--{name}" for name in SIZES if given[name]] + [f"--only={name}" for name in given["only"] or ()]


def size(given: argparse.Namespace) -> str:
    return next((name for name in ("tiny", "quick", "full") if getattr(given, name)), "normal")
