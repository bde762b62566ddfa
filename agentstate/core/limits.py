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
SCRATCHPAD_BYTES_MAX = 256 * KIB  # text of the entries in force; they ride in every checkpoint
SCRATCHPAD_ENTRIES_MAX = 400  # in force
CONTEXT_BUDGET_TOKENS = 32_000  # of a run for which neither it, nor its agent, nor its model says one
CONTEXT_BUDGET_TOKENS_MAX = 10_000_000
SUMMARISE_AT_SHARE = 0.7  # share of the context budget, or of the scratchpad's bounds, at which it is summarised
SUMMARISE_TO_SHARE = 0.4  # about what is left of it then
SUMMARISED_CHARS_MAX = 1 * MIB  # of all texts of one summary; each gives its fair share
SUMMARISE_S_MAX = 120  # seconds that a model may take for one summary
REASON_CHARS_MAX = 4_000  # what a person writes beside a decision
EMBEDDED_CHARS_MAX = 32 * KIB  # of one text; what comes after has no part in its vector

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

# Memory
MESSAGE_BYTES_MAX = 256 * KIB  # of one message's text
MESSAGES_APPENDED_MAX = 200  # in one call
UNDO_MESSAGES_MAX = 1_000  # taken back at once
AUTHORS_MAX = 10_000  # of one subject's sessions
BUFFER_MESSAGES_MAX = 200  # of one session that wait in Redis: what a loss of Redis costs at most
BUFFER_BYTES_MAX = 4 * MIB
BUFFER_AGE_S_MAX = 60
SESSION_LIFE_S_MAX = 10 * 365 * 86_400
SUBJECT_CAP_BYTES_MIN = 4 * KIB  # of one subject's items
SUBJECT_CAP_BYTES_MAX = 8 * KIB
SUBJECT_RECALL_MAX = 100  # hits of one question
CONTEXT_TOKENS_MIN = 50
CONTEXT_TOKENS_MAX = 1_000_000
PROGRESS_BYTES_MAX = 16 * KIB  # of one progress document
PROMPT_BYTES_MAX = 32 * KIB
INJECTIONS_MAX = 5_000  # texts of one call
SUBJECT_QUESTIONS_MAX = 20  # newest, for previews
INDEXED_CHARS_MAX = 64 * KIB  # of one text, for full text search; a tsvector holds 1 MiB
QUESTION_CHARS_MAX = 4_000  # of a question to memory; what comes after is not asked
QUESTION_LEXEMES_MAX = 64
QUESTION_AUTHORS_MAX = 200  # a subject with more authors gets no cue from their names
TENANT_RECALL_UNITS = 50_000  # above it a search over the whole tenant takes seconds; doctor says so
RETENTION_DAYS_MAX = 36_500  # of sessions and of the ledger; none at all keeps them for ever
RECEIPT_DAYS = 30  # a keyed write of memory is answered again so long
ALIASES_MAX = 50  # of one subject
ALIAS_CHARS_MAX = 254  # an address of mail is the longest of them
ALIAS_KIND_CHARS_MAX = 40
ITEM_BYTES_MAX = 2 * KIB  # of one item's text
FACTS_BYTES_MAX = 2 * KIB  # of one item's facts as JSON
SUBJECT_ITEMS_MAX = 300  # active ones; a write reads all of them
ITEM_SOURCES_MAX = 50  # messages that one item names as its source
ITEM_LOCK_S_MAX = 900  # an editor's lock on an item, unless it is renewed
ERASED_ROWS = 2_000  # deleted in one transaction of an erasure
ERASE_GRACE_S = 90  # and a lease: so long an erasure waits for a worker that it asked to end; a call's default is 60
ERASED_RUNS = 50  # stopped, or made unreadable, in one transaction
EXPORTED_ROWS = 500  # read in one transaction of an export
IMPORT_LINE_BYTES_MAX = 2 * MIB  # a message of the largest size, with every character escaped
IMPORT_LINES_MAX = 1_000_000  # of one file

# Interfaces
LONG_POLL_S_MAX = 25
PAGE_ROWS = 50
PAGE_ROWS_MAX = 200

# Tenants
API_KEYS_MAX = 200  # live ones of a tenant
KEY_LAST_USED_S = 60  # last_used_at of an API key is written at most this often
KEYS_CACHED_MAX = 4_096  # unwrapped keys a process remembers

assert ENTRY_BYTES_MAX <= SCRATCHPAD_BYTES_MAX <= STATE_BYTES_MAX  # the scratchpad rides in the checkpoint
assert 0 < SUMMARISE_TO_SHARE < SUMMARISE_AT_SHARE < 1
assert CONTEXT_BUDGET_TOKENS <= CONTEXT_BUDGET_TOKENS_MAX < 2**31
assert VALUE_BYTES_INLINE < STATE_BYTES_MAX <= PAYLOAD_BYTES_MAX < SEALED_BYTES_MAX
assert TAG_CHARS_MAX <= NAME_CHARS_MAX < IDENTITY_CHARS_MAX
assert GENERATION_STEPS_WARN < GENERATION_STEPS_MAX
assert 0 < KEYFRAME_DELTAS_MIN < KEYFRAME_DELTAS_MAX
assert LONG_POLL_S_MAX < 30  # common idle limit of proxies
assert PAGE_ROWS <= PAGE_ROWS_MAX
assert JSON_DEPTH_MAX < 254  # orjson refuses deeper values without naming the place
assert MESSAGE_BYTES_MAX <= BUFFER_BYTES_MAX
assert ITEM_BYTES_MAX + FACTS_BYTES_MAX <= SUBJECT_CAP_BYTES_MIN <= SUBJECT_CAP_BYTES_MAX
assert CONTEXT_TOKENS_MIN < CONTEXT_TOKENS_MAX
