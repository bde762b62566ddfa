"""Memory over REST: what is kept, once, for whom; versions, bounds and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agentstate.core import clock
from agentstate.tenants.actors import Actor
from tests.api.conftest import Caller
from tests.api.problems import refused

TEXT = "Wants mail in German."
IF_FIRST = {"If-Match": '"1"'}
OTHER = "Never call before noon, she works at night."


def kept(api: Caller, text: str = TEXT, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = ok(api("POST", "/memory/items", {"subject": "user:1", "text": text, **more}))
    return found


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def subject(api: Caller) -> str:
    body = {"external_id": "user:1", "aliases": [{"kind": "email", "value": "Ada@Example.com"}], "name": "Ada"}
    found: str = ok(api("POST", "/memory/subjects", body))["subject_id"]
    return found


@pytest.fixture
def session(api: Caller, subject: str) -> str:
    found: str = ok(api("POST", "/memory/sessions", {"key": "letter-1", "subject": "user:1"}))["session_id"]
    return found


def said(api: Caller, session: str, *texts: str, **more: Any) -> Any:
    messages = [{"role": "user", "text": text} for text in texts]
    return ok(api("POST", f"/memory/sessions/{session}/messages", {"messages": messages, **more}))


def test_a_subject_is_one_by_all_its_names(api: Caller, subject: str) -> None:
    again = ok(api("POST", "/memory/subjects", {"aliases": [{"kind": "email", "value": " ada@example.com "}]}))
    assert again["subject_id"] == subject and again["name"] == "Ada"
    full = ok(api("POST", f"/memory/subjects/{subject}/aliases", {"kind": "phone", "value": "+49 30 1234"}))
    phone = next(alias for alias in full["aliases"] if alias["kind"] == "phone")
    for named in ("user:1", subject, "ada@example.com", "phone:+49 30 1234"):
        page = ok(api("GET", "/memory/subjects", params={"named": named}))
        assert [row["subject_id"] for row in page["subjects"]] == [subject], named
    ok(api("DELETE", f"/memory/subjects/{subject}/aliases/{phone['alias_id']}"))
    assert ok(api("GET", "/memory/subjects", params={"named": "phone:+49 30 1234"}))["subjects"] == []
    other = {"external_id": "user:2", "aliases": [{"kind": "email", "value": "ada@example.com"}]}
    refused(api("POST", "/memory/subjects", other), 409, "conflict")


def test_a_smaller_cap_says_what_left_recall(api: Caller, subject: str) -> None:
    words = ["tea", "trains", "paint", "bread", "rivers", "glass", "wool", "salt"]
    for word in words:
        kept(api, f"Asked about {word}. " + " ".join(f"{word}{n}" for n in range(120)))
    full = ok(api("PATCH", f"/memory/subjects/{subject}", {"cap_bytes": 4096, "name": "Ada L."}))
    assert full["name"] == "Ada L." and full["own_cap_bytes"] == 4096
    assert full["evicted"] and full["item_bytes"] <= 4096
    over = ok(api("GET", "/memory/items", params={"subject": subject, "state": "over_cap"}))["items"]
    assert {item["item_id"] for item in over} >= {each["item_id"] for each in full["evicted"]}
    refused(api("PATCH", f"/memory/subjects/{subject}", {"cap_bytes": 1}), 422, "invalid", "/cap_bytes")


def test_who_changes_a_subject_second_is_told_what_stands(api: Caller, subject: str) -> None:
    address = f"/memory/subjects/{subject}"
    seen = {"If-Match": api("GET", address).headers["ETag"]}
    first = api("PATCH", address, {"name": "Ada L.", "cap_bytes": 6000}, headers=seen)
    assert ok(first)["version"] == ok(api("GET", address))["version"] and first.headers["ETag"] != seen["If-Match"]
    for body, theirs in (({"name": "A. L."}, {"name": "Ada L."}), ({"cap_bytes": 5000}, {"cap_bytes": 6000})):
        late = refused(api("PATCH", address, body, headers=seen), 409, "conflict")
        assert {**late["theirs"], "by": ""} == {**theirs, "by": ""} and late["version"] == ok(first)["version"]
    both = {"name": "Ada L.", "cap_bytes": 5000}
    refused(api("PATCH", address, both, headers=seen), 409, "conflict")
    assert ok(api("PATCH", address, {"name": "Ada L.", "cap_bytes": 6000}, headers=seen))["own_cap_bytes"] == 6000
    refused(api("PATCH", address, both, headers={"If-Match": "x"}), 422, "invalid", "If-Match")
    assert ok(api("PATCH", address, both))["own_cap_bytes"] == 5000, "without one it is over whatever stands"


def test_the_same_key_keeps_one_item_and_the_same_answer(api: Caller, subject: str) -> None:
    key = {"Idempotency-Key": "order-77"}
    body = {"subject": "user:1", "text": TEXT}
    first, second = (ok(api("POST", "/memory/items", body, headers=key)) for _ in range(2))
    assert first == second and first["change"] == "created"
    assert kept(api)["change"] == "duplicate"
    refused(api("POST", "/memory/items", {**body, "text": OTHER}, headers=key), 409, "conflict")
    assert len(ok(api("GET", "/memory/items", params={"subject": "user:1"}))["items"]) == 1


def test_a_change_names_the_version_it_saw(api: Caller, subject: str) -> None:
    item = kept(api)["item"]
    path = f"/memory/items/{item['item_id']}"
    read = api("GET", path)
    assert read.headers["ETag"] == '"1"' and [row["change"] for row in read.json()["revisions"]] == ["created"]
    refused(api("PATCH", path, {"text": OTHER}), 422, "invalid", "If-Match")
    changed = ok(api("PATCH", path, {"text": OTHER, "reason": "she said so"}, headers={"If-Match": '"1"'}))
    assert (changed["version"], changed["text"], changed["revisions"][0]["reason"]) == (2, OTHER, "she said so")
    conflict = refused(api("PATCH", path, {"text": "Other."}, headers={"If-Match": '"1"'}), 409, "conflict")
    assert conflict["version"] == 2
    restored = ok(api("POST", f"{path}/restore", {"version": 1, "reason": "back"}, headers={"If-Match": '"2"'}))
    assert (restored["version"], restored["text"], restored["revisions"][0]["restored_from"]) == (3, TEXT, 1)


def test_pinning_and_forgetting_move_an_item(api: Caller, subject: str) -> None:
    path = f"/memory/items/{kept(api)['item']['item_id']}"
    pinned = ok(api("POST", f"{path}/pin", {"reason": "always"}))
    assert pinned["pinned"] and pinned["expires_at"] is None
    refused(api("POST", f"{path}/unpin", {}, headers={"If-Match": '"99"'}), 409, "conflict")
    assert not ok(api("POST", f"{path}/unpin", {"reason": "not always"}))["pinned"]
    assert ok(api("POST", f"{path}/forget", {"reason": "she asked"}))["status"] == "forgotten"
    assert ok(api("GET", "/memory/items", params={"subject": "user:1"}))["items"] == []
    assert len(ok(api("GET", "/memory/items", params={"state": "any"}))["items"]) == 1


def test_items_are_paged_over_all_subjects(api: Caller, subject: str) -> None:
    for word in ("tea", "trains", "paint"):
        kept(api, f"Asked about {word}.")
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = ok(api("GET", "/memory/items", params={"limit": 1, "cursor": cursor}))
        seen += [item["text"] for item in page["items"]]
        cursor = page["next"]
    assert seen == ["Asked about paint.", "Asked about trains.", "Asked about tea."] and cursor == ""
    first = ok(api("GET", "/memory/items", params={"limit": 1}))["next"]
    refused(
        api("GET", "/memory/items", params={"limit": 1, "cursor": first, "kind": "episodic"}), 422, "invalid", "cursor"
    )
    refused(api("GET", "/memory/items", params={"colour": "red"}), 422, "invalid", "colour")


def test_items_are_read_as_of_a_moment(api: Caller, subject: str) -> None:
    first, other = kept(api)["item"], kept(api, OTHER)["item"]
    before = clock.now().isoformat()
    changed = api("PATCH", f"/memory/items/{first['item_id']}", {"text": "Wants mail in French."}, headers=IF_FIRST)
    assert changed.status_code == 200
    api("POST", f"/memory/items/{other['item_id']}/forget", {})
    address = f"/memory/subjects/{subject}/as-of"

    def read(at: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = ok(api("GET", address, params={"as_of": at, **more}))
        return found

    page = read(before, limit=1)
    held = page["items"] + read(before, limit=1, cursor=page["next"])["items"]
    assert {each["text"] for each in held} == {TEXT, OTHER}
    assert {(each["version"], each["version_now"], each["status_now"]) for each in held} == {
        (1, 2, "active"),
        (1, 2, "forgotten"),
    }
    (today,) = read(before, known="now")["items"] or [{"text": ""}]
    assert today["text"] == "Wants mail in French."
    assert read("2020-01-01T00:00:00Z")["items"] == [] == read(before, namespace="else")["items"]
    zoneless, misspelt = {"as_of": "2020-01-01T00:00:00"}, {"as_of": before, "at": 1}
    for params, field in (({}, "as_of"), (zoneless, "as_of"), (misspelt, "at")):
        refused(api("GET", address, params=params), 422, "invalid", field)


def test_messages_are_kept_once_numbered_and_taken_back(api: Caller, session: str) -> None:
    key = {"Idempotency-Key": "m-1"}
    body = {"messages": [{"role": "user", "text": "One.", "client_id": "c-1"}, {"role": "assistant", "text": "Two."}]}
    path = f"/memory/sessions/{session}/messages"
    first, second = (ok(api("POST", path, body, headers=key)) for _ in range(2))
    assert first == second and [row["seq"] for row in first["messages"]] == [1, 2] and first["durable"]
    again = ok(api("POST", path, {"messages": [{"role": "user", "text": "One.", "client_id": "c-1"}]}))
    assert again["messages"] == first["messages"][:1]
    said(api, session, "Three.", "Four.")
    page = ok(api("GET", path, params={"limit": 3}))
    assert [row["text"] for row in page["messages"]] == ["Four.", "Three.", "Two."]
    rest = ok(api("GET", path, params={"limit": 3, "cursor": page["next"]}))
    assert [row["text"] for row in rest["messages"]] == ["One."] and rest["next"] == ""
    ranged = ok(api("GET", path, params={"from_seq": 2, "to_seq": 3}))
    assert [row["seq"] for row in ranged["messages"]] == [2, 3]
    undo = {"last_n": 2, "reason": "wrong letter"}
    refused(api("POST", f"/memory/sessions/{session}/undo", undo, headers={"If-Match": '"7"'}), 409, "conflict")
    headers = {"If-Match": '"1"', "Idempotency-Key": "undo-1"}
    for _ in range(2):  # the second one is a repeat, not two more messages
        undone = ok(api("POST", f"/memory/sessions/{session}/undo", undo, headers=headers))
        assert (undone["version"], len(undone["message_ids"])) == (2, 2)
    assert [row["seq"] for row in ok(api("GET", path))["messages"]] == [2, 1]
    assert len(ok(api("GET", path, params={"with_undone": True}))["messages"]) == 4


def test_messages_are_found_by_time_over_sessions(api: Caller, subject: str, session: str) -> None:
    other = ok(api("POST", "/memory/sessions", {"key": "letter-2", "subject": subject}))["session_id"]
    for place, target in enumerate((session, other, session)):
        at = f"2026-01-0{place + 1}T10:00:00Z"
        body = {"messages": [{"role": "user", "text": f"Day {place + 1}.", "sent_at": at}]}
        ok(api("POST", f"/memory/sessions/{target}/messages", body))
    path = f"/memory/subjects/{subject}/messages"
    found = ok(api("GET", path, params={"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "limit": 1}))
    assert [row["text"] for row in found["messages"]] == ["Day 1."]
    following = ok(
        api(
            "GET",
            path,
            params={"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "limit": 1, "cursor": found["next"]},
        )
    )
    assert [row["text"] for row in following["messages"]] == ["Day 2."] and following["next"] == ""


def test_a_closed_session_takes_no_message(api: Caller, session: str) -> None:
    closed = ok(api("POST", f"/memory/sessions/{session}/close", {"reason": "answered"}))
    assert closed["status"] == "closed"
    body = {"messages": [{"role": "user", "text": "Hello?"}]}
    refused(api("POST", f"/memory/sessions/{session}/messages", body), 409, "conflict")
    listed = ok(api("GET", "/memory/sessions", params={"status": "closed"}))["sessions"]
    assert [row["session_id"] for row in listed] == [session]


def test_recall_and_the_preview_write_nothing(api: Caller, subject: str, session: str) -> None:
    said(api, session, "My parcel from the north has not come.")
    item = kept(api, pinned=True)["item"]
    asked = {"subject": "user:1", "question": "Where is the parcel?", "explain": True}
    hits = ok(api("POST", "/memory/recall", asked))["hits"]
    assert hits[0]["text"].startswith("My parcel") and hits[0]["matched"] and hits[0]["scores"]
    assert sum(hits[0]["scores"].values()) == pytest.approx(hits[0]["score"], rel=1e-3)
    for name in (session, "letter-1"):
        built = ok(api("POST", "/memory/context", {"session": name, "question": "Mail?", "budget_tokens": 300}))
        assert TEXT in built["text"] and built["used_tokens"] <= 300
    assert ok(api("GET", f"/memory/ledger/sources/{item['item_id']}"))["runs"] == 0
    assert ok(api("GET", f"/memory/ledger/sessions/{session}"))["calls"] == []
    tight = api("POST", "/memory/context", {"session": session, "budget_tokens": 50})
    assert tight.status_code == 200 or refused(tight, 422, "invalid", "/budget_tokens")


def test_documents_have_versions(api: Caller) -> None:
    new, old = {"If-Match": '"0"'}, {"If-Match": '"1"'}
    body = {"key": "topic:tea", "sections": {"goal": "Learn about tea.", "next": "Read page 1."}}
    first = api("PUT", "/memory/progress", body, headers=new)
    assert ok(first)["version"] == 1 and first.headers["ETag"] == '"1"'
    body["sections"] = {"goal": "Learn about tea.", "done": "Page 1."}
    refused(api("PUT", "/memory/progress", body, headers=new), 409, "conflict")
    assert ok(api("PUT", "/memory/progress", body, headers=old))["sections"]["done"] == "Page 1."
    read = api("GET", "/memory/progress", params={"key": "topic:tea"})
    assert read.headers["ETag"] == '"2"' and ok(read)["documents"][0]["body"].startswith("## Goal")
    assert len(ok(api("GET", "/memory/progress"))["documents"]) == 1
    refused(api("GET", "/memory/progress", params={"key": "none"}), 404, "not-found")
    refused(api("PUT", "/memory/progress", {"key": "topic:tea"}, headers=old), 422, "invalid", "/body")
    prompt = {"agent": "desk", "text": "Be brief."}
    assert ok(api("PUT", "/memory/prompts", prompt, headers=new))["version"] == 1
    refused(api("PUT", "/memory/prompts", {**prompt, "text": "Be long."}, headers=new), 409, "conflict")
    read = api("GET", "/memory/prompts", params={"agent": "desk"})
    assert read.headers["ETag"] == '"1"' and ok(read)["prompts"][0]["text"] == "Be brief."
    assert len(ok(api("GET", "/memory/prompts"))["prompts"]) == 1


def test_a_proposal_is_decided_once(api: Caller, subject: str) -> None:
    facts = {"fact_kind": "preference"}
    kept(api, "Prefers tea.", facts={"about": "drink", "value": "tea"}, **facts)
    later = kept(api, "Prefers strong coffee these days.", facts={"about": "drink", "value": "coffee"}, **facts)
    assert later["contradicts"]
    (proposal,) = ok(api("GET", "/memory/proposals", params={"subject": "user:1"}))["proposals"]
    path = f"/memory/proposals/{proposal['proposal_id']}"
    assert (proposal["act"], proposal["before"]) == ("supersede", "Prefers tea.")
    decided = ok(api("POST", f"{path}/accept", {"reason": "yes"}))
    assert decided["proposal"]["status"] == "accepted"
    refused(api("POST", f"{path}/reject", {}), 409, "conflict")
    active = ok(api("GET", "/memory/items", params={"subject": "user:1"}))["items"]
    assert [item["text"] for item in active] == ["Prefers strong coffee these days."]
    assert ok(api("GET", "/memory/proposals", params={"decided": True}))["proposals"][0]["status"] == "accepted"


BAD: list[tuple[str, str, Any, str]] = [
    ("POST", "/memory/items", {"subject": "user:1", "text": "x", "colour": "red"}, "/colour"),
    ("POST", "/memory/items", {"subject": "user:1", "text": ""}, "/text"),
    ("POST", "/memory/items", {"subject": "user:1", "text": "x", "importance": 2}, "/importance"),
    ("POST", "/memory/items", {"subject": "user:1", "text": "x", "importance": "high"}, "/importance"),
    ("POST", "/memory/items", {"subject": "user:1", "text": "x" * 5_000}, "/text"),
    ("POST", "/memory/recall", {"subject": "user:1", "question": "tea", "k": 0}, "/k"),
    ("POST", "/memory/recall", {"subject": "user:1", "question": "  "}, "/question"),
    ("POST", "/memory/sessions", {"key": "", "subject": "user:1"}, "/key"),
    ("POST", "/memory/subjects", {}, "/external_id"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), BAD)
def test_bad_input_names_the_field(api: Caller, subject: str, method: str, path: str, body: Any, field: str) -> None:
    answer = api(method, path, body)
    assert answer.status_code in (413, 422), answer.text
    assert answer.json()["field"] == field, answer.text


def test_nul_and_half_a_surrogate_are_refused(api: Caller, subject: str, session: str) -> None:
    for text in (b'"a\\u0000b"', b'"a\\ud83d"'):
        body = b'{"messages": [{"role": "user", "text": ' + text + b"}]}"
        answer = api(
            "POST", f"/memory/sessions/{session}/messages", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422, answer.text


def test_a_worker_writes_under_its_claim_only(caller: Callable[..., Caller], alice: Actor) -> None:
    worker = caller(alice, "runs.work", "runs.read")
    assert refused(worker("POST", "/memory/subjects", {"external_id": "x"}), 403, "forbidden")["verb"] == "memory.write"
