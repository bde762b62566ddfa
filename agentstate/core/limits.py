"""Every bound, with its unit in its name. The relations between them are asserted at import."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# Sizes
STATE_BYTES_MAX = 1 * MIB  # canonical JSON of one checkpoint's state; larger costs 20-190 ms a step
VALUE_BYTES_INLINE = 64 * KIB  # a single larger value is stored once, by its hash, as a sealed blob
PAYLOAD_BYTES_MAX = 20 * MIB  # input or output of one step
SEALED_BYTES_MAX = 64 * MIB  # plaintext of anything sealed; bounds what a decompressor may ask for
ENTRY_BYTES_MAX = 16 * KIB  # one scratchpad entry
SCRATCHPAD_BYTES_MAX = 256 * KIB
SCRATCHPAD_ENTRIES_MAX = 1_000
REASON_CHARS_MAX = 4_000  # what a person writes beside a decision

# Names
IDENTITY_CHARS_MAX = 1_000  # path of a step
NAME_CHARS_MAX = 200
SLUG_CHARS_MAX = 60
EMAIL_CHARS_MAX = 254  # RFC 5321
TAGS_MAX = 20
TAG_CHARS_MAX = 64
EXTERNAL_ID_CHARS_MAX = 200

# JSON
JSON_DEPTH_MAX = 100
JSON_INT_MAX = 2**63 - 1  # what a bigint, a JavaScript BigInt64 and every client can hold

# Runs
GENERATION_STEPS_WARN = 1_000
GENERATION_STEPS_MAX = 2_000
CLAIMS_WITHOUT_PROGRESS_MAX = 5  # then the run is quarantined as poison
KEYFRAME_DELTAS_MIN = 8
KEYFRAME_DELTAS_MAX = 64

# Interfaces
LONG_POLL_S_MAX = 25
PAGE_ROWS = 50
PAGE_ROWS_MAX = 200
LOCK_TIMEOUT_MS = 3_000

# Tenants
API_KEYS_MAX = 200  # live ones of a tenant
KEY_LAST_USED_S = 60  # last_used_at of an API key is written at most this often
KEYS_CACHED_MAX = 4_096  # unwrapped keys a process remembers

assert ENTRY_BYTES_MAX <= SCRATCHPAD_BYTES_MAX <= STATE_BYTES_MAX  # the scratchpad rides in the checkpoint
assert VALUE_BYTES_INLINE < STATE_BYTES_MAX <= PAYLOAD_BYTES_MAX < SEALED_BYTES_MAX
assert TAG_CHARS_MAX <= NAME_CHARS_MAX < IDENTITY_CHARS_MAX
assert GENERATION_STEPS_WARN < GENERATION_STEPS_MAX
assert 0 < KEYFRAME_DELTAS_MIN < KEYFRAME_DELTAS_MAX
assert LONG_POLL_S_MAX < 30  # common idle limit of proxies
assert PAGE_ROWS <= PAGE_ROWS_MAX
assert JSON_DEPTH_MAX < 254  # orjson refuses deeper values without naming the place
