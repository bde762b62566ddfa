"""What must be true of a tenant's memory whatever crashed when: the rules that a bug could break.

Memory grows where runs end, so each rule looks at what moved last: SUBJECTS, SESSIONS, LINES of the ledger and RUNS of
the tenant, the newest first. A subject that is being erased loses its rows one batch after the other, and is left to
its erasure.

What needs no rule, because a constraint refuses it: a message number twice (memory_message_seq), a client id twice in
a session (memory_message_client_id), a revision twice or one key for two (the primary key, memory_itemrevision_key),
the same words active twice (memory_item_said_once), two units of one text (the primary key), a vector without its
model (memory_unit_model), a subject, an alias or an author twice, a receipt twice, an item, session, unit, summary,
proposal or ledger line without its subject (foreign keys).
"""

from __future__ import annotations

from agentstate.affairs.rules import Rule
from agentstate.core.limits import RECEIPT_DAYS, SUBJECT_CAP_BYTES_MAX, SUBJECT_ITEMS_MAX

SUBJECTS = 1_000
SESSIONS = 1_000
LINES = 10_000
RUNS = 1_000

# Indexes: memory_subject_recent, memory_session_recent, the keys (tenant, id) of ledger and runs.
_SUBJECTS = f"""(SELECT * FROM memory_subject WHERE status = 'active'
  ORDER BY last_active_at DESC, id DESC LIMIT {SUBJECTS})"""
_SESSIONS = f"""(SELECT n.* FROM memory_session n JOIN memory_subject w ON w.id = n.subject_id AND w.status = 'active'
  ORDER BY n.last_active_at DESC, n.id DESC LIMIT {SESSIONS})"""
_LINES = f"(SELECT * FROM memory_injection ORDER BY id DESC LIMIT {LINES})"
_ERASURES = f"(SELECT * FROM affairs_erasure ORDER BY id DESC LIMIT {SUBJECTS})"
_RUNS = f"(SELECT id FROM runs_run ORDER BY id DESC LIMIT {RUNS})"
# A step's key as receipts are filed under it, see memory.services.receipts.
_RECEIPT = "encode(sha256(convert_to(s.run_id::text, 'UTF8') || '\\x00'::bytea || convert_to(s.key, 'UTF8')), 'hex')"

RULES = (
    Rule(
        "subject_counts",
        "a subject's counts are those of its rows",
        f"""SELECT s.id, format('its %s is %s, its rows say %s', c.what, c.kept, c.found) FROM {_SUBJECTS} s
        CROSS JOIN LATERAL (SELECT count(*) AS n, coalesce(sum(bytes), 0) AS bytes,
            coalesce(sum(bytes) FILTER (WHERE pinned), 0) AS pinned
          FROM memory_item i WHERE i.subject_id = s.id AND i.status = 'active') i
        CROSS JOIN LATERAL (SELECT count(*) AS n, coalesce(sum(message_count), 0) AS messages
          FROM memory_session n WHERE n.subject_id = s.id) n
        CROSS JOIN LATERAL (VALUES ('item_bytes', s.item_bytes, i.bytes), ('pinned_bytes', s.pinned_bytes, i.pinned),
          ('item_count', s.item_count, i.n), ('session_count', s.session_count, n.n),
          ('message_count', s.message_count, n.messages)) c (what, kept, found)
        WHERE c.kept <> c.found""",
    ),
    Rule(
        "under_the_cap",
        "active items never pass the cap of their subject",
        f"""SELECT id, format('%s bytes in %s items, over its cap of %s', item_bytes, item_count,
          coalesce(cap_bytes, {SUBJECT_CAP_BYTES_MAX}))
        FROM {_SUBJECTS} s
        WHERE item_bytes > coalesce(cap_bytes, {SUBJECT_CAP_BYTES_MAX}) OR item_count > {SUBJECT_ITEMS_MAX}""",
    ),
    Rule(
        "session_is_whole",
        "a session has each of its messages, in order and without holes, and its counts are theirs",
        f"""SELECT n.id, format('its %s is %s, its rows say %s', c.what, c.kept, c.found) FROM {_SESSIONS} n
        CROSS JOIN LATERAL (SELECT count(*) AS n, coalesce(min(seq), 1) AS first, coalesce(max(seq), 0) AS last,
            count(*) FILTER (WHERE undone_in IS NULL) AS standing, coalesce(max(undone_in), 1) AS undone,
            count(*) FILTER (WHERE undone_in IS NULL AND role = 'user') AS turns,
            coalesce(sum(tokens) FILTER (WHERE undone_in IS NULL), 0) AS tokens
          FROM memory_message m WHERE m.session_id = n.id) m
        CROSS JOIN LATERAL (VALUES ('last_seq', n.last_seq, m.last), ('number of messages', n.last_seq, m.n),
          ('first number', 1, m.first), ('message_count', n.message_count, m.standing), ('turns', n.turns, m.turns),
          ('tokens', n.tokens, m.tokens), ('version', n.version, greatest(n.version, m.undone)),
          ('summarised_seq', n.summarised_seq, least(n.summarised_seq, m.last)),
          ('extracted_seq', n.extracted_seq, least(n.extracted_seq, m.last))) c (what, kept, found)
        WHERE c.kept <> c.found""",
    ),
    Rule(
        "versions_are_whole",
        "an item or a document has every version from the first to the one in force",
        f"""SELECT i.id, format('an item at version %s has %s revisions, the newest is %s', i.version, v.n, v.last)
        FROM {_SUBJECTS} s JOIN memory_item i ON i.subject_id = s.id CROSS JOIN LATERAL (
          SELECT count(*) AS n, max(version) AS last FROM memory_itemrevision r WHERE r.item_id = i.id) v
        WHERE v.n <> i.version OR v.last <> i.version
        UNION ALL SELECT p.id, format('a document at version %s has %s, the newest is %s', p.version, v.n, v.last)
        FROM memory_progress p LEFT JOIN memory_subject s ON s.id = p.subject_id CROSS JOIN LATERAL (
          SELECT count(*) AS n, max(version) AS last FROM memory_progressversion r WHERE r.progress_id = p.id) v
        WHERE coalesce(s.status, 'active') = 'active' AND (v.n <> p.version OR v.last <> p.version)
        UNION ALL SELECT p.id, format('a prompt at version %s has %s, the newest is %s', p.version, v.n, v.last)
        FROM memory_prompt p CROSS JOIN LATERAL (
          SELECT count(*) AS n, max(version) AS last FROM memory_promptversion r WHERE r.prompt_id = p.id) v
        WHERE v.n <> p.version OR v.last <> p.version""",
    ),
    Rule(
        "item_as_last_revised",
        "how an item stands is how its newest revision says",
        f"""SELECT i.id, format('it is %s%s with importance %s, its newest revision says %s%s with %s', i.status,
          CASE WHEN i.pinned THEN ', pinned' END, i.importance, r.status, CASE WHEN r.pinned THEN ', pinned' END,
          r.importance)
        FROM {_SUBJECTS} s JOIN memory_item i ON i.subject_id = s.id
        JOIN memory_itemrevision r ON r.item_id = i.id AND r.version = i.version
        WHERE (i.status, i.pinned, i.importance) <> (r.status, r.pinned, r.importance)""",
    ),
    Rule(
        "found_as_it_stands",
        "each message and item has its unit of recall, which is found while they stand and not afterwards",
        f"""SELECT m.id, CASE WHEN u.id IS NULL THEN 'a message that search does not know'
          WHEN u.in_recall THEN 'a message that is found and does not stand' ELSE 'a message that is not found' END
        FROM {_SESSIONS} n JOIN memory_message m ON m.session_id = n.id
        LEFT JOIN memory_unit u ON u.id = m.id AND u.kind = 'message' AND u.session_id = m.session_id AND u.seq = m.seq
        WHERE u.in_recall IS DISTINCT FROM (m.undone_in IS NULL AND m.origin = 'said')
        UNION ALL
        SELECT i.id, CASE WHEN u.id IS NULL THEN 'an item that search does not know'
          WHEN u.in_recall THEN format('an item that is found and is %s', i.status) ELSE 'an item that is not found' END
        FROM {_SUBJECTS} s JOIN memory_item i ON i.subject_id = s.id
        LEFT JOIN memory_unit u ON u.id = i.id AND u.kind = 'item'
        WHERE u.in_recall IS DISTINCT FROM (i.status = 'active')
        UNION ALL
        SELECT u.id, format('a unit of a %s that is not there', u.kind)
        FROM {_SUBJECTS} s JOIN memory_unit u ON u.subject_id = s.id
        WHERE NOT EXISTS (SELECT FROM memory_message m WHERE m.id = u.id AND u.kind = 'message')
          AND NOT EXISTS (SELECT FROM memory_item i WHERE i.id = u.id AND u.kind = 'item')""",
    ),
    Rule(
        "tokens_of_one_model",
        "the tokens of a unit are of the model that made its vector",
        f"""SELECT u.id, format('its vector is of "%s", its tokens of "%s"', u.model, t.model)
        FROM {_SUBJECTS} s JOIN memory_unit u ON u.subject_id = s.id JOIN memory_unittokens t ON t.unit_id = u.id
        WHERE t.model <> u.model""",
    ),
    Rule(
        "one_summary_in_force",
        "a session and a subject have one running summary, which tells nothing that was taken back or is not there",
        f"""SELECT n.id, format('%s summaries of the session are in force', count(*))
        FROM {_SESSIONS} n JOIN memory_summary y ON y.session_id = n.id AND NOT y.stale AND y.level = 'session'
        GROUP BY n.id HAVING count(*) > 1
        UNION ALL SELECT s.id, format('%s summaries of the subject are in force', count(*))
        FROM {_SUBJECTS} s JOIN memory_summary y ON y.subject_id = s.id AND NOT y.stale AND y.level = 'subject'
        GROUP BY s.id HAVING count(*) > 1
        UNION ALL SELECT y.id, format('it tells up to message %s of a session that is summarised to %s', y.to_seq,
          n.summarised_seq)
        FROM {_SESSIONS} n JOIN memory_summary y ON y.session_id = n.id AND NOT y.stale
        WHERE y.to_seq > n.summarised_seq OR y.from_seq > y.to_seq
        UNION ALL SELECT y.id, format('it tells message %s, which was taken back', min(m.seq))
        FROM {_SESSIONS} n JOIN memory_summary y ON y.session_id = n.id AND NOT y.stale
        JOIN memory_message m ON m.session_id = n.id AND m.seq BETWEEN y.from_seq AND y.to_seq
          AND m.undone_in > y.session_version
        GROUP BY y.id
        UNION ALL SELECT y.id, format('it tells %s, which is not before it in its session', o.id)
        FROM {_SESSIONS} n JOIN memory_summary y ON y.session_id = n.id AND NOT y.stale
        CROSS JOIN LATERAL unnest(y.source_ids) o (id)
        WHERE NOT EXISTS (SELECT FROM memory_message m WHERE m.id = o.id AND m.session_id = n.id AND m.seq <= y.to_seq)
          AND NOT EXISTS (SELECT FROM memory_summary z WHERE z.id = o.id AND z.id <> y.id AND z.session_id = n.id
            AND z.to_seq <= y.to_seq)""",
    ),
    Rule(
        "same_subject",
        "what belongs to a session, an item or a unit is about whom that is about",
        f"""SELECT n.id, format('its message %s is about another subject', m.seq)
        FROM {_SESSIONS} n JOIN memory_message m ON m.session_id = n.id WHERE m.subject_id <> n.subject_id
        UNION ALL SELECT n.id, format('its summary %s is about another subject', y.id)
        FROM {_SESSIONS} n JOIN memory_summary y ON y.session_id = n.id WHERE y.subject_id <> n.subject_id
        UNION ALL SELECT u.id, 'its unit is about another subject'
        FROM {_SUBJECTS} s JOIN memory_unit u ON u.subject_id = s.id
        LEFT JOIN memory_message m ON m.id = u.id LEFT JOIN memory_item i ON i.id = u.id
        WHERE coalesce(m.subject_id, i.subject_id) <> u.subject_id
        UNION ALL SELECT i.id, format('its version %s is about another subject', r.version)
        FROM {_SUBJECTS} s JOIN memory_item i ON i.subject_id = s.id JOIN memory_itemrevision r ON r.item_id = i.id
        WHERE r.subject_id <> i.subject_id
        UNION ALL SELECT u.id, 'its tokens or its next vector are about another subject'
        FROM {_SUBJECTS} s JOIN memory_unit u ON u.subject_id = s.id
        LEFT JOIN memory_unittokens t ON t.unit_id = u.id LEFT JOIN memory_unitstaged g ON g.unit_id = u.id
        WHERE t.subject_id <> u.subject_id OR g.subject_id <> u.subject_id
        UNION ALL SELECT p.id, 'it proposes a change of what is about another subject'
        FROM {_SUBJECTS} s JOIN memory_proposal p ON p.subject_id = s.id JOIN memory_item i ON i.id = p.item_id
        WHERE i.subject_id <> p.subject_id""",
    ),
    Rule(
        "erased_is_gone",
        "of an erased subject there is nothing left, and no key opens what is on its way out",
        f"""SELECT e.subject_id, format('it was erased, and %s has rows of it', f.place) FROM {_ERASURES} e
        CROSS JOIN LATERAL (
          SELECT 'memory_subject' AS place FROM memory_subject s WHERE s.id = e.subject_id
          UNION SELECT 'memory_message' FROM memory_message m WHERE m.subject_id = e.subject_id
          UNION SELECT 'memory_itemrevision' FROM memory_itemrevision r WHERE r.subject_id = e.subject_id
          UNION SELECT 'memory_unit' FROM memory_unit u WHERE u.subject_id = e.subject_id
          UNION SELECT 'memory_unittokens' FROM memory_unittokens t WHERE t.subject_id = e.subject_id
          UNION SELECT 'memory_unitstaged' FROM memory_unitstaged g WHERE g.subject_id = e.subject_id) f
        WHERE e.status = 'verified'
        UNION ALL SELECT e.subject_id, format('its erasure is %s, and its key opens', e.status)
        FROM {_ERASURES} e JOIN memory_ownerkey k ON k.owner_id = e.subject_id
        WHERE e.status <> 'planned' AND k.destroyed_at IS NULL
        UNION ALL SELECT s.id, 'nothing about it can be read: its key is missing'
        FROM {_SUBJECTS} s LEFT JOIN memory_ownerkey k ON k.owner_id = s.id
        WHERE k.owner_id IS NULL OR k.destroyed_at IS NOT NULL""",
    ),
    Rule(
        "given_from_a_version",
        "a line of the ledger names a version and a run that are there, and the subject of its words",
        f"""SELECT l.source_id, format('version %s of the %s was given, and is not there', l.version, l.source)
        FROM {_LINES} l LEFT JOIN memory_subject s ON s.id = l.subject_id
        WHERE coalesce(s.status, 'active') = 'active' AND (
          (l.source = 'item' AND NOT EXISTS (SELECT FROM memory_itemrevision r
            WHERE r.item_id = l.source_id AND r.version = l.version))
          OR (l.source = 'progress' AND NOT EXISTS (SELECT FROM memory_progressversion r
            WHERE r.progress_id = l.source_id AND r.version = l.version))
          OR (l.source = 'prompt' AND NOT EXISTS (SELECT FROM memory_promptversion r
            WHERE r.prompt_id = l.source_id AND r.version = l.version)))
        UNION ALL SELECT l.source_id, format('the %s was given as if it were about another subject', l.source)
        FROM {_LINES} l
        LEFT JOIN memory_message m ON l.source = 'message' AND m.id = l.source_id
        LEFT JOIN memory_item i ON l.source = 'item' AND i.id = l.source_id
        LEFT JOIN memory_summary y ON l.source = 'summary' AND y.id = l.source_id
        WHERE coalesce(m.subject_id, i.subject_id, y.subject_id) IS DISTINCT FROM l.subject_id
          AND coalesce(m.subject_id, i.subject_id, y.subject_id) IS NOT NULL
        UNION ALL SELECT l.call_id, format('%s texts stand at place %s of one call', count(*), l.position)
        FROM {_LINES} l GROUP BY l.call_id, l.position HAVING count(*) > 1
        UNION ALL SELECT l.run_id, 'a run was given something, and there is no such run'
        FROM {_LINES} l WHERE l.run_id IS NOT NULL AND NOT EXISTS (SELECT FROM runs_run r WHERE r.id = l.run_id)
        GROUP BY l.run_id""",
    ),
    Rule(
        "remembered_once",
        "a write of a run that is done has its receipt, and was done once",
        f"""SELECT s.run_id, format('step %s %s is done and no receipt says so', s.seq, s.name)
        FROM {_RUNS} n JOIN runs_step s ON s.run_id = n.id LEFT JOIN checkpoints_runkey k ON k.run_id = s.run_id
        WHERE s.kind = 'memory' AND s.effect = 'keyed' AND s.status = 'done' AND s.source = 'worker'
          AND s.ended_at > clock_timestamp() - interval '{RECEIPT_DAYS - 1} days' AND k.destroyed_at IS NULL
          AND NOT EXISTS (SELECT FROM memory_receipt r WHERE r.key = {_RECEIPT})
        UNION ALL SELECT s.run_id, format('step %s %s has written %s messages', s.seq, s.name, count(*))
        FROM {_RUNS} n JOIN memory_message m ON m.run_id = n.id
        JOIN runs_step s ON s.run_id = m.run_id AND s.seq = m.step_seq
        WHERE s.name = 'memory.say' GROUP BY s.run_id, s.seq, s.name HAVING count(*) > 1
        UNION ALL SELECT i.source_run_id, format('step %s has made %s items', s.seq, count(*))
        FROM {_SUBJECTS} w JOIN memory_item i ON i.subject_id = w.id
        JOIN runs_step s ON s.run_id = i.source_run_id AND s.seq = i.source_step_seq
        WHERE s.name = 'memory.remember' GROUP BY i.source_run_id, s.seq HAVING count(*) > 1""",
    ),
    Rule(
        "proposal_decided_once",
        "a proposal that is decided says when, and what was accepted stands",
        f"""SELECT p.id, format('%s since %s, and item %s is %s', p.status, coalesce(p.decided_at::text, 'never'),
          coalesce(p.item_id::text, 'none'), coalesce(i.status, 'not there'))
        FROM {_SUBJECTS} s JOIN memory_proposal p ON p.subject_id = s.id LEFT JOIN memory_item i ON i.id = p.item_id
        WHERE (p.status = 'pending') <> (p.decided_at IS NULL) OR (p.status = 'accepted' AND i.id IS NULL)""",
    ),
)
