-- The hot path: one call, one round trip, one commit. Finishes steps, begins steps, writes one frame and the trace
-- and renews the lease, all under the fence. NULL = fenced out, nothing was written.
--
-- p_bodies[1..3] are the frame's sealed body, its plaintext's SHA-256 and the chain's new head; the JSON names the
-- rest by index. A changed meaning gets a new function (runs_turn_2): old workers keep calling this one.
--
-- Answers: {"seq": first new seq, "control": ..}         it landed (also when it had landed before: COMMIT's reply lost)
--          {"refused": "stop" | "pause" | "cancel" | "budget"}   steps may not begin now; send the turn without them
--          {"stale": true}                                the caller's picture of the run is old; load it again
create function runs_turn(p_tenant uuid, p_run uuid, p_fence bigint, p jsonb, p_bodies bytea[])
returns jsonb language plpgsql as $$
declare
  v_scope text := set_config('agentstate.tenant', p_tenant::text, true);  -- cheaper than PERFORM
  run record;
  v_frame int := (p->>'frame')::int;
  v_starts int := coalesce(jsonb_array_length(p->'start'), 0);
  v_begins int := v_starts - coalesce((p->>'over')::int, 0);  -- what is over already is only recorded: never refused
  v_ends int := coalesce(jsonb_array_length(p->'finish'), 0);
  v_entries int := coalesce(jsonb_array_length(p->'entry'), 0);
  v_now timestamptz := clock_timestamp();
  v_over boolean;
  v_sent boolean;
  s jsonb;
  v_head bytea;
  v_seq int;
  a record;
begin
  -- A stop that is committed after this statement began is seen by the next turn.
  update runs_run r set
      lease_until = v_now + make_interval(secs => (p->>'lease_s')::float8),
      frame_n = v_frame, chain = p_bodies[3], claims = 0,
      step_seq = r.step_seq + v_starts, event_seq = r.event_seq + 1 + v_entries,
      entry_seq = r.entry_seq + v_entries,
      tokens_in = r.tokens_in + coalesce((p->>'tin')::bigint, 0),
      tokens_out = r.tokens_out + coalesce((p->>'tout')::bigint, 0),
      cost = r.cost + coalesce((p->>'cost')::float8, 0)
    where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > v_now
      and r.frame_n = v_frame - 1
      and (v_begins = 0 or (r.control = ''
        and not exists (select from runs_stop s where s.status = 'active' and s.agent in ('', r.agent))
        and (r.budget_steps is null or r.step_seq + v_starts <= r.budget_steps)
        and (r.budget_tokens is null or r.tokens_in + r.tokens_out
             + coalesce((p->>'tin')::bigint, 0) + coalesce((p->>'tout')::bigint, 0) < r.budget_tokens)
        and (r.budget_cost is null or r.cost + coalesce((p->>'cost')::float8, 0) < r.budget_cost)
        and (r.budget_wall_s is null or v_now < r.started_at + make_interval(secs => r.budget_wall_s))))
    returning r.generation, r.step_seq, r.event_seq, r.worker_id, r.created_at, r.control, r.audit_head, r.audit_seq
    into run;

  if not found then
    select * into run from runs_run r
      where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > v_now;
    if not found then
      return null;
    end if;
    if run.frame_n = v_frame and run.chain = p_bodies[3] then
      return jsonb_build_object('seq', run.step_seq - v_starts + 1, 'control', run.control, 'again', true);
    end if;
    if run.frame_n <> v_frame - 1 then
      return jsonb_build_object('stale', true);
    end if;
    if exists (select from runs_stop s where s.status = 'active' and s.agent in ('', run.agent)) then
      return jsonb_build_object('refused', 'stop');
    end if;
    return jsonb_build_object('refused', case when run.control <> '' then run.control else 'budget' end);
  end if;

  -- Step by step: joined with the JSON as a set, the planner hashes all steps of the run for the sake of one.
  for i in 0 .. v_ends - 1 loop
    s := p->'finish'->i;
    update runs_step set
        status = 'done', outcome = 'done', output = p_bodies[(s->>'body')::int],
        output_hash = p_bodies[(s->>'hash')::int], ended_at = v_now, end_frame = v_frame, source = 'worker',
        model = coalesce(s->>'model', ''), tokens_in = coalesce((s->>'tin')::int, 0),
        tokens_out = coalesce((s->>'tout')::int, 0), cost = coalesce((s->>'cost')::float8, 0)
      where run_id = p_run and seq = (s->>'seq')::int and fence = p_fence and status = 'started';
    if not found then
      raise exception 'a finished step of run % is not started under fence %', p_run, p_fence using errcode = 'AS001';
    end if;
  end loop;

  for i in 0 .. v_starts - 1 loop
    s := p->'start'->i;
    v_over := s->>'status' = 'done';
    v_sent := s ? 'key' and s->>'status' = 'started';
    insert into runs_step (tenant_id, run_id, seq, generation, identity, parent_seq, name, kind, effect, status,
        outcome, attempt, retry, edit_version, authorised, sent, key, payload_hash, input, output, output_hash,
        error_type, fence, worker_id, started_at, first_called_at, call_by, timeout_s, window_s, settles_within_s,
        has_probe, probes_unknown, due_at, ended_at, end_frame, source, model, tokens_in, tokens_out, cost)
      values (p_tenant, p_run, run.step_seq - v_starts + 1 + i, run.generation, s->>'identity', (s->>'parent')::int,
        s->>'name', s->>'kind', s->>'effect', s->>'status',
        case when v_over then 'done' else '' end, 1, 0, 0, 0, v_sent::int, s->>'key', p_bodies[(s->>'hash')::int],
        p_bodies[(s->>'input')::int], p_bodies[(s->>'output')::int], p_bodies[(s->>'ohash')::int],
        '', p_fence, run.worker_id, v_now, case when v_sent then v_now end,
        v_now + make_interval(secs => (s->>'call_for')::float8), (s->>'timeout')::float8, (s->>'win')::float8,
        (s->>'settles')::float8, coalesce((s->>'probe')::boolean, false), 0,
        v_now + make_interval(secs => (s->>'due')::float8), case when v_over then v_now end,
        case when v_over then v_frame end, 'worker', '', 0, 0, 0);
  end loop;

  insert into checkpoints_frame (tenant_id, run_id, n, generation, step_seq, kind, base_n, schema_version, sha, chain,
      plain_bytes, body, fence, created)
    values (p_tenant, p_run, v_frame, run.generation, nullif(run.step_seq, 0), p->>'frame_kind', (p->>'base')::int,
      (p->>'schema')::int, p_bodies[2], p_bodies[3], (p->>'plain')::int, p_bodies[1], p_fence, v_now);

  insert into runs_event (tenant_id, month, run_id, seq, kind, detail, body, tokens, at)
    values (p_tenant, date_trunc('month', run.created_at at time zone 'UTC')::date, p_run, run.event_seq - v_entries,
      'turn', p->'turn', null, 0, v_now);
  if v_entries > 0 then
    insert into runs_event (tenant_id, month, run_id, seq, kind, detail, body, tokens, at)
      select p_tenant, date_trunc('month', run.created_at at time zone 'UTC')::date, p_run,
        run.event_seq - v_entries + f.ord, 'entry', jsonb_build_object('n', f.n), p_bodies[f.body], f.tokens, v_now
      from (select x.*, row_number() over ()::int as ord from jsonb_to_recordset(p->'entry')
        as x(n int, body int, tokens int)) f;
  end if;

  if p ? 'audit' then  -- effects only: claimed and settled are acts, not plain steps
    v_head := run.audit_head;
    v_seq := run.audit_seq;
    for a in select x.* from jsonb_to_recordset(p->'audit') as x(action text, was text, now text, detail jsonb, begun text) loop
      if a.begun is not null then
        a.detail := a.detail || jsonb_build_object('seq', (select s.seq from runs_step s
          where s.run_id = p_run and s.generation = run.generation and s.identity = a.begun));
      end if;
      v_seq := v_seq + 1;
      v_head := agentstate_audit(p_tenant, 'run', p_run, v_seq, v_head, a.action, a.was, a.now, 'worker',
        coalesce(run.worker_id::text, ''), a.detail, null);
    end loop;
    update runs_run r set audit_head = v_head, audit_seq = v_seq where r.id = p_run;
  end if;

  return jsonb_build_object('seq', run.step_seq - v_starts + 1, 'control', run.control);
end $$;

-- Heartbeat. NULL = fenced out or the lease has ended; else what a person asked for meanwhile ('' nothing).
create function runs_renew(p_tenant uuid, p_run uuid, p_fence bigint, p_lease_s float8)
returns text language plpgsql as $$
declare
  v_scope text := set_config('agentstate.tenant', p_tenant::text, true);
  v_control text;
begin
  update runs_run r set lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
    where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > clock_timestamp()
    returning r.control into v_control;
  return v_control;
end $$;
