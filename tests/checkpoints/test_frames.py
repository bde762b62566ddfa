"""The codec: small, exact, and bound to its place."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstate.core import canonical
from agentstate.core.errors import Corrupt, Invalid, TooLarge
from agentstate.core.ids import new_id
from agentstate.core.limits import KEYFRAME_DELTAS_MAX, KEYFRAME_DELTAS_MIN, KIB
from agentstate.crypto import sealing
from checkpoints import blobs, frames
from checkpoints.frames import Codec, Weight
from checkpoints.writing import FrameRow, FrameWriter
from tests.checkpoints.conftest import state, text

TENANT, RUN = new_id(), new_id()


@pytest.fixture
def codec() -> Codec:
    return Codec(os.urandom(32))


def write(writer: FrameWriter, doc: dict[str, Any], **how: Any) -> FrameRow:
    frame = writer.prepare(doc, **how)
    writer.advance(frame)
    return frame


def writer() -> FrameWriter:
    return FrameWriter(TENANT, RUN, os.urandom(32))


def body_of(codec: Codec, plain: bytes, previous: bytes | None, n: int = 2) -> bytes:
    return codec.encode(plain, previous=previous, aad=aad(n=n))


def open_body(codec: Codec, body: bytes, previous: bytes | None, plain_bytes: int, **place: Any) -> bytes:
    return codec.decode(body, previous=previous, plain_bytes=plain_bytes, aad=aad(**place))


def aad(tenant_id: UUID = TENANT, run_id: UUID = RUN, n: int = 2, chain: bytes = b"") -> bytes:
    return frames.bound_to(frames.frames_of(tenant_id, run_id), n, chain)


@pytest.mark.parametrize("size", [20_000, 100_000, 500_000, 900_000])
def test_an_append_of_2_kb_costs_less_than_2_kb(size: int) -> None:
    grown, w = state(size), writer()
    write(w, grown)
    grown["messages"].append({"role": "assistant", "content": text(1_960, seed=99_999)})
    frame = write(w, grown)
    assert frame.base_n == 1
    assert len(frame.body) < 2 * KIB


@pytest.mark.parametrize("size", [20_000, 500_000])
def test_edits_all_over_a_large_state_cost_what_they_hold(size: int) -> None:
    edited, w = state(size), writer()
    write(w, edited)
    for place in range(0, len(edited["messages"]), max(1, len(edited["messages"]) // 10)):
        edited["messages"][place]["content"] = text(100, seed=place + 5_000)
    edited["messages"].insert(0, {"role": "system", "content": text(300, seed=77)})
    assert len(write(w, edited).body) < 2 * KIB


def test_200_steps_that_add_2_kb_each_take_at_most_600_kb() -> None:
    grown, w = state(0), writer()
    total = 0
    for seed in range(200):
        grown["messages"].append({"role": "user", "content": text(1_960, seed), "n": seed})
        total += len(write(w, grown).body)
    assert w.n == 200
    assert total <= 600_000


def test_an_unchanged_state_costs_a_few_bytes() -> None:
    w = writer()
    write(w, state(50_000))
    frame = write(w, state(50_000))
    assert len(frame.body) <= 32
    assert frame.plain == w.prepare(state(50_000)).plain


def test_keyframes_come_between_8_and_64_deltas_and_at_every_boundary() -> None:
    w, gaps, since = writer(), [], 0
    write(w, state(4_000))
    for seed in range(300):
        frame = write(w, {"note": text(300, seed)}, boundary=seed == 100)
        if seed == 100:
            assert frame.base_n is None
        elif frame.base_n is None:
            gaps.append(since)
        since = 0 if frame.base_n is None else since + 1
    assert gaps and min(gaps) >= KEYFRAME_DELTAS_MIN and max(gaps) <= KEYFRAME_DELTAS_MAX


def test_deltas_of_nothing_still_end_at_64() -> None:
    weight = Weight(keyframe_bytes=10_000, delta_bytes=64, deltas=KEYFRAME_DELTAS_MAX)
    assert weight.is_due()
    assert not Weight(keyframe_bytes=10_000, delta_bytes=63, deltas=KEYFRAME_DELTAS_MAX - 1).is_due()
    assert not Weight(keyframe_bytes=10, delta_bytes=9_999, deltas=KEYFRAME_DELTAS_MIN - 1).is_due()


def test_prepare_has_no_side_effect_until_advance() -> None:
    w = writer()
    write(w, {"a": 1})
    first, second = w.prepare({"a": 2}, steps_digest=b"d" * 32), w.prepare({"a": 2}, steps_digest=b"d" * 32)
    assert (first.n, first.sha, first.chain, first.plain) == (second.n, second.sha, second.chain, second.plain)
    w.advance(second)
    with pytest.raises(AssertionError):
        w.advance(first)


def test_the_chain_covers_every_frame_and_step_before() -> None:
    key = os.urandom(32)
    heads = []
    for first, digest in ((1, b"a" * 32), (2, b"a" * 32), (1, b"b" * 32)):
        w = FrameWriter(TENANT, RUN, key)
        write(w, {"first": first}, steps_digest=digest)
        heads.append(write(w, {"same": True}, steps_digest=b"c" * 32).chain)
    assert len(set(heads)) == 3


def test_the_schema_version_stands_inside_the_sealed_state() -> None:
    frame = FrameWriter(TENANT, RUN, os.urandom(32), schema_version=3).prepare({"a": 1})
    assert frame.schema_version == 3
    assert canonical.loads(frame.plain) == {"a": 1, "schema_version": 3}


def test_nothing_unsealed_shows_in_a_frames_repr() -> None:
    assert "secret" not in repr(writer().prepare({"password": "secret"}))


@pytest.mark.parametrize("place", [{"n": 3}, {"run_id": new_id()}, {"tenant_id": new_id()}, {"chain": b"x" * 32}])
def test_a_body_moved_elsewhere_does_not_open(codec: Codec, place: dict[str, Any]) -> None:
    body = body_of(codec, b'{"a":1}', None)
    with pytest.raises(Corrupt):
        open_body(codec, body, None, 7, **place)


@pytest.mark.parametrize("position", [0, 1, 12, 13, 20, -1])
def test_no_flipped_bit_survives(codec: Codec, position: int) -> None:
    body = bytearray(body_of(codec, canonical.dumps(state(4_000)), None))
    body[position] ^= 1
    with pytest.raises(Corrupt):
        open_body(codec, bytes(body), None, 4_000)


@pytest.mark.parametrize("length", [0, 1, 13, 28, 29, 100])
def test_no_truncated_body_opens(codec: Codec, length: int) -> None:
    plain = canonical.dumps(state(4_000))
    with pytest.raises(Corrupt):
        open_body(codec, body_of(codec, plain, None)[:length], None, len(plain))


def test_a_wrong_dictionary_never_gives_the_right_hash(codec: Codec) -> None:
    before = canonical.dumps(state(20_000))
    plain = before.replace(b"user", b"robot")
    wrong = before[::-1]
    try:
        found = open_body(codec, body_of(codec, plain, before), wrong, len(plain))
    except Corrupt:
        return
    assert codec.sha(found) != codec.sha(plain)


def test_a_body_never_unpacks_to_more_than_its_row_says() -> None:
    key = os.urandom(32)
    bomb = zstandard.ZstdCompressor().compress(b"0" * 200_000_000)
    body = sealing.seal(key, bomb, aad=aad(), compress=False)
    with pytest.raises(Corrupt, match="unpack"):
        open_body(Codec(key), body, None, 1_000)


def test_a_body_without_a_stated_size_is_refused() -> None:
    key = os.urandom(32)
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(b"0" * 1_000)
    body = sealing.seal(key, nameless, aad=aad(), compress=False)
    with pytest.raises(Corrupt):
        open_body(Codec(key), body, None, 1_000)


def test_the_same_state_hashes_differently_in_every_run() -> None:
    assert writer().prepare({"a": 1}).sha != writer().prepare({"a": 1}).sha


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"state": {"name": "a\0b"}}, "/state/name"),
        ({"state": ["\ud800"]}, "/state/0"),
        ({"state": {"x": float("nan")}}, "/state/x"),
        ({"state": {"x": None, "y": float("inf")}}, "/state/y"),
        ({"state": 2**64}, "/state"),
        ({"state": {1: 2}}, "/state"),
        ({"state": {"when": object()}}, "/state/when"),
    ],
)
def test_bad_input_is_refused_with_its_place(bad: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as refusal:
        writer().prepare(bad)
    assert refusal.value.field == place


def test_a_state_nested_1000_deep_is_refused() -> None:
    deep: Any = 0
    for _ in range(1_000):
        deep = [deep]
    with pytest.raises(Invalid):
        writer().prepare({"state": deep})


def test_a_state_over_1_mib_is_refused_and_names_its_largest_keys() -> None:
    doc = {"state": {"log": [text(2_000)] * 600, "small": 1, "other": [text(2_000)] * 20}, "plan": "x"}
    with pytest.raises(TooLarge) as refusal:
        writer().prepare(doc)
    assert refusal.value.http_status == 413
    assert refusal.value.field == "/state/log"
    assert [found["key"] for found in refusal.value.data["largest"]][:2] == ["/state/log", "/state/other"]
    assert "/state/log (1.1 MiB)" in refusal.value.message


def test_a_payload_of_20_mb_is_one_blob_and_more_is_refused() -> None:
    frame = writer().prepare({"state": {"scan": text(2_000) * 9_500}})
    assert [blob.text_bytes for blob in frame.blobs] == [19_000_000]
    assert frame.plain_bytes < 1 * KIB
    with pytest.raises(TooLarge) as refusal:
        writer().prepare({"state": {"scan": text(2_000) * 11_000}})
    assert refusal.value.field == "/state/scan"


def test_texts_over_64_kib_are_sent_once_and_smaller_ones_stay() -> None:
    w, large = writer(), text(70_000)
    first = write(w, {"large": large, "again": large, "inline": text(60_000)})
    assert [blob.text_bytes for blob in first.blobs] == [70_000]
    assert 60_000 < first.plain_bytes < 61_000
    assert write(w, {"large": large, "more": 1}).blobs == ()
    assert write(w, {"more": 2}).blobs == ()
    assert len(write(w, {"large": large}).blobs) == 1  # compaction may have dropped it meanwhile


def test_texts_of_wide_characters_count_in_bytes() -> None:
    frame = writer().prepare({"large": "語" * 30_000})
    assert [blob.text_bytes for blob in frame.blobs] == [90_000]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "is", "$blob", "bytes", "schema"]), inner, max_size=4)
    ),
    max_leaves=12,
)


LARGE = text(70_000)


@settings(deadline=None)
@given(JSON)
def test_detach_and_attach_give_every_value_back(value: Any) -> None:
    padded = {"value": value, "large": LARGE}
    stored, texts = blobs.detach(padded, sha=canonical.sha)
    again = canonical.loads(canonical.dumps(stored))
    assert set(blobs.references(again)) == set(texts)
    assert canonical.dumps(blobs.attach(again, fetch=texts.__getitem__)) == canonical.dumps(padded)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["set", "drop", "append", "same"]), st.sampled_from("abc"), JSON), max_size=90)
)
def test_every_frame_of_random_edits_restores_byte_identical(edits: list[tuple[str, str, Any]]) -> None:
    key = os.urandom(32)
    w, codec, doc = FrameWriter(TENANT, RUN, key), Codec(key), {"log": [text(500)]}
    plain: bytes | None = None
    for act, name, value in edits:
        if act == "set":
            doc[name] = value
        elif act == "drop":
            doc.pop(name, None)
        elif act == "append":
            doc["log"].append(value)
        frame = write(w, doc)
        plain = codec.decode(
            frame.body,
            previous=None if frame.base_n is None else plain,
            plain_bytes=frame.plain_bytes,
            aad=aad(n=frame.n, chain=frame.chain),
        )
        assert plain == frame.plain == canonical.dumps(canonical.loads(plain))
        assert codec.sha(plain) == frame.sha
