"""The pages people read: the inbox, one mail, what is known about a key. Plain HTML, all foreign text escaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from urllib.parse import quote

from agentstate.dev.sandbox.ledger import Json, Line

Render = Callable[[Json], str]

CSS = """
:root { color-scheme: light dark; --bg: light-dark(#fbfbfa, #131416); --raise: light-dark(#fff, #1a1c1f);
  --line: light-dark(#e6e6e2, #25282c); --text: light-dark(#1c1d1f, #e7e7e4); --muted: light-dark(#5a5d63, #a2a6ad);
  --accent: light-dark(#1d5fbf, #82b1ff); --tenant: light-dark(#6f7681, #8a919b) }
* { box-sizing: border-box; margin: 0 }
body { font: .875rem/1.25rem system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word;
  background: var(--bg); color: var(--text); border-top: 3px solid var(--tenant); font-variant-numeric: tabular-nums }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; min-height: 48px; padding: 0 24px;
  border-bottom: 1px solid var(--line) }
main { max-width: 900px; margin-inline: auto; padding: 20px 24px 64px }
h1 { font-size: 1.5rem; line-height: 2rem; font-weight: 600; letter-spacing: -.017em; margin-bottom: 4px }
h2 { font-size: 1rem; line-height: 1.5rem; font-weight: 600; margin: 28px 0 8px }
p.lede { color: var(--muted); margin-bottom: 16px }
a { color: var(--accent); text-underline-offset: 3px }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px }
table { border-collapse: collapse; width: 100% }
th { text-align: start; font-weight: 500; color: var(--muted); font-size: .8125rem }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top }
dl { display: grid; grid-template-columns: 8rem minmax(0, 1fr); gap: 4px 12px }
dt { color: var(--muted) } dd { margin: 0 }
pre { font: .8125rem/1.25rem ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  background: var(--raise); border: 1px solid var(--line); border-radius: 4px; padding: 12px; margin-top: 12px }
code { overflow-wrap: anywhere; font: .78125rem ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }
"""


def inbox(mails: list[Json]) -> str:
    rows = [
        (
            _link(f"/inbox/{mail['mail_id']}", mail["subject"] or "(no subject)"),
            escape(mail["to"]),
            escape(mail["date"]),
        )
        for mail in reversed(mails)
    ]
    lede = f"{len(mails)} caught. Nothing is ever delivered to anybody."
    return _page("Inbox", lede, _table(("Subject", "To", "Date"), rows, empty="No mail has arrived yet."))


def mail(found: Json) -> str:
    facts = _facts({"From": found["from"], "To": found["to"], "Date": found["date"], "Message-ID": found["message_id"]})
    return _page(found["subject"] or "(no subject)", "", f"{facts}<pre>{escape(found['text'])}</pre>")


def mailbox(messages: list[Json]) -> str:
    parts = [
        f"<h2 id='{escape(message['message_id'])}'>{escape(message['subject'])}</h2>"
        + _facts({"Id": message["message_id"], "From": f"{message['name']} <{message['sender']}>"})
        + f"<pre>{escape(message['body'])}</pre>"
        for message in messages
    ]
    return _page("Mailbox", "What customers have written to the shop.", "".join(parts))


def order(found: Json) -> str:
    shown = ("order_id", "customer_id", "placed_on", "status", "currency", "total", "refunded", "balance")
    rows = [
        (escape(refund["refund_id"]), escape(refund["amount"]), _code(refund["key"])) for refund in found["refunds"]
    ]
    refunds = _table(("Refund", "Amount", "Idempotency-Key"), rows, empty="Nothing has been refunded.")
    facts = _facts({name.replace("_", " "): str(found[name]) for name in shown})
    return _page(f"Order {found['order_id']}", "", f"{facts}<h2>Refunds</h2>{refunds}")


def lookup(key: str, lines: list[Line]) -> str:
    acts = [line for line in lines if line["phase"] == "acted"]
    verdict = f"It happened {'once' if len(acts) == 1 else f'{len(acts)} times'}." if acts else "It has not happened."
    return _page("What is known about this key", verdict, _code(key) + "<h2>Ledger</h2>" + _ledger_table(lines))


def ledger(lines: list[Line]) -> str:
    lede = f"The newest {len(lines)} lines of what this side was asked and what it did, newest first."
    return _page("Ledger", lede, _ledger_table(list(reversed(lines))))


def trouble(message: str) -> str:
    return _page("Not here", message, "")


def _ledger_table(lines: list[Line]) -> str:
    rows = [
        (_time(line), escape(line["tool"]), line["phase"], _outcome(line), str(line["attempt"]), _key(line))
        for line in lines
    ]
    return _table(("Time", "Tool", "Phase", "Outcome", "Attempt", "Key"), rows, empty="No call has arrived.")


def _time(line: Line) -> str:
    day, clock = line["time"].split("T")
    return f'<time datetime="{escape(line["time"])}" title="{day}">{escape(clock[:12])}</time>'


def _key(line: Line) -> str:
    return _link(f"/lookup/{quote(line['key'], safe='')}", line["key"][:12] + "…") if line["key"] else ""


def _outcome(line: Line) -> str:
    if line["phase"] == "acted":
        return _code(json.dumps(line["result"], ensure_ascii=False)[:300])
    return escape(f"{line.get('status', '')} {line.get('note', '')}".strip())


def _page(title: str, lede: str, body: str) -> str:
    links = " ".join(_link(f"/{name.lower()}", name) for name in ("Inbox", "Mailbox", "Ledger"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)} · sandbox</title><link rel="stylesheet" href="/sandbox.css"></head>'
        f"<body><header><b>The other side</b> {links}</header>"
        f'<main><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p>{body}</main></body></html>'
    )


def _table(heads: Iterable[str], rows: Sequence[tuple[str, ...]], *, empty: str) -> str:
    """Cells are HTML already."""
    if not rows:
        return f"<p>{escape(empty)}</p>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _facts(facts: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()) + "</dl>"


def _link(href: str, text: str) -> str:
    return f'<a href="{escape(href)}">{escape(text)}</a>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
