"""What a browser has to load stays small, and comes from us."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from agentstate.http.middleware import CONTENT_SECURITY_POLICY

STATIC = Path(__file__).resolve().parents[2] / "static" / "agentstate"
TEMPLATES = STATIC.parents[1] / "templates"
KB = 1024


def zipped(*paths: Path) -> int:
    return sum(len(gzip.compress(path.read_bytes())) for path in paths)


def test_the_budgets_of_style_script_and_icons_hold() -> None:
    assert zipped(STATIC / "app.css") <= 12 * KB
    assert zipped(*STATIC.rglob("*.js")) <= 20 * KB
    assert (STATIC / "app.js").stat().st_size <= 3.5 * KB
    assert (STATIC / "sprite.svg").stat().st_size <= 6 * KB
    assert not [path for path in STATIC.rglob("*") if path.suffix in {".woff", ".woff2", ".ttf", ".png", ".jpg"}]


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "http" not in CONTENT_SECURITY_POLICY
    for template in TEMPLATES.rglob("*.html"):
        text = template.read_text()
        assert " style=" not in text and " hx-on" not in text and "javascript:" not in text, template
        assert not re.search(r'(src|href)="https?://', text), template


def test_vendored_scripts_carry_their_licence() -> None:
    assert "BSD" in (STATIC / "vendor" / "htmx-LICENSE.txt").read_text()
