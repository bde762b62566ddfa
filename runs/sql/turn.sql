-- The hot path: one call, one round trip, one commit. Finishes steps, begins steps, writes one frame and the trace
-- and renews the lease, all under the fence. NULL = fenced out, nothing was written.
--
-- Every operator and function of a statement is looked up, checked for rights and set up anew by each execution, so
-- what nearly every turn has comes as typed arguments, and what few have (usage, keys, time-outs, parents, entries, acts
-- on effects) in p_more, which is null otherwise. A changed meaning gets a new function (runs_turn_2): old workers keep
-- calling this one. What it writes for one plain step, runs_turn_plain writes the same.
--
-- p_ended: numbers of steps; p_outputs: of each of them the sealed output and its hash. p_begun: of each new step
-- identity, name, kind, effect and status; p_inputs: of each the payload's hash, the sealed payload, and the sealed
-- output and its hash if it is over. p_begins: how many of them begin; what is over already is only recorded, so it is
-- never refused. p_entries: sealed scratchpad entries. p_told: what the event says of the turn.
--
-- Answers: '7', '7 pause'   it landed: the first new step's number, and what a person asked for meanwhile
--          'again'          it had landed before: COMMIT's reply was lost
--          'refused stop', 'pause', 'cancel' or 'budget'   steps may not begin now; send the turn without them
--          'stale'          the caller's picture of the run is old; load it again
create function runs_turn(p_tenant uuid, p_run uuid, p_fence bigint, p_lease interval, p_call_for interval,
  p_month date, p_frame int, p_base int, p_frame_kind text, p_schema int, p_plain int, p_body bytea, p_sha bytea,
  p_chain bytea, p_ends int, p_ended int[], p_outputs bytea[], p_starts int, p_begins int, p_begun text[],
  p_inputs bytea[], p_entries bytea[], p_told jsonb, p_more jsonb)
returns text language plpgsql as $$
declare
  v_scope text := set_config('agentstate.tenant', p_tenant::text, true);  -- cheaper than PERFORM
  v_now timestamptz := clock_timestamp();
  v_noted int = 0;
  v_generation int;
  v_step_seq int;
  v_event_seq int;
  v_worker uuid;
  v_control text;
  v_tin bigint;
  v_tout bigint;
  v_cost float8;
  v_model text;
  s jsonb;
  v_parent int;
  v_key text;
  v_sent int = 0;
  v_timeout float8;
  v_window float8;
  v_settles float8;
  v_probe boolean = false;
  v_due timestamptz;
  run record;
  a record;
begin
  if p_more is not null then
    v_noted := cardinality(p_entries);
    v_tin := p_more->>'tin';
    v_tout := p_more->>'tout';
    v_cost := p_more->>'cost';
  end if;

  -- A stop that is committed after this statement began is seen by the next turn.
  update runs_run r set
      lease_until = v_now + p_lease, frame_n = p_frame, chain = p_chain, claims = 0,
      step_seq = r.step_seq + p_starts, event_seq = r.event_seq + 1 + v_noted, entry_seq = r.entry_seq + v_noted,
      tokens_in = r.tokens_in + coalesce(v_tin, 0), tokens_out = r.tokens_out + coalesce(v_tout, 0),
      cost = r.cost + coalesce(v_cost, 0)
    where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > v_now
      and r.frame_n = p_frame - 1
      and (p_begins = 0 or (r.control = ''
        and not exists (select from runs_stop s where s.status = 'active' and s.agent in ('', r.agent))
        and (r.budget_steps is null and r.budget_tokens is null and r.budget_cost is null and r.budget_wall_s is null
             or runs_within_budget(r, p_starts, v_tin, v_tout, v_cost, v_now))))
    returning r.generation, r.step_seq, r.event_seq, r.worker_id, r.control
    into v_generation, v_step_seq, v_event_seq, v_worker, v_control;

  if not found then
    select * into run from runs_run r
      where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > v_now;
    if not found then
      return null;
    end if;
    if run.frame_n = p_frame and run.chain = p_chain then
      return 'again';
    end if;
    if run.frame_n <> p_frame - 1 then
      return 'stale';
    end if;
    if exists (select from runs_stop s where s.status = 'active' and s.agent in ('', run.agent)) then
      return 'refused stop';
    end if;
    return 'refused ' || case when run.control <> '' then run.control else 'budget' end;
  end if;

  -- Step by step: joined with a set, the planner hashes all steps of the run for the sake of one.
  for i in 1 .. p_ends loop
    if p_more is not null then
      s := p_more->'finish'->(i - 1);
      v_model := s->>'model';
      v_tin := s->>'tin';
      v_tout := s->>'tout';
      v_cost := s->>'cost';
    end if;
    update runs_step set
        status = 'done', outcome = 'done', output = p_outputs[i][1], output_hash = p_outputs[i][2], ended_at = v_now,
        end_frame = p_frame, source = 'worker', model = coalesce(v_model, ''), tokens_in = coalesce(v_tin, 0),
        tokens_out = coalesce(v_tout, 0), cost = coalesce(v_cost, 0)
      where run_id = p_run and seq = p_ended[i] and fence = p_fence and status = 'started';
    if not found then
      raise exception 'a finished step of run % is not started under fence %', p_run, p_fence using errcode = 'AS001';
    end if;
  end loop;

  for i in 1 .. p_starts loop
    if p_more is not null then
      s := p_more->'start'->(i - 1);
      v_parent := s->>'parent';
      v_key := s->>'key';
      v_sent := (v_key is not null and p_begun[i][5] = 'started')::int;
      v_timeout := s->>'timeout';
      v_window := s->>'win';
      v_settles := s->>'settles';
      v_probe := coalesce((s->>'probe')::boolean, false);
      v_due := v_now + make_interval(secs => (s->>'due')::float8);
    end if;
    insert into runs_step (tenant_id, run_id, seq, generation, identity, parent_seq, name, kind, effect, status,
        outcome, attempt, retry, edit_version, authorised, sent, key, payload_hash, input, output, output_hash,
        error_type, fence, worker_id, started_at, first_called_at, call_by, timeout_s, window_s, settles_within_s,
        has_probe, probes_unknown, due_at, ended_at, end_frame, source, model, tokens_in, tokens_out, cost)
      values (p_tenant, p_run, v_step_seq - p_starts + i, v_generation, p_begun[i][1], v_parent, p_begun[i][2],
        p_begun[i][3], p_begun[i][4], p_begun[i][5], case when p_inputs[i][4] is null then '' else 'done' end,
        1, 0, 0, 0, v_sent, v_key, p_inputs[i][1], p_inputs[i][2], p_inputs[i][3], p_inputs[i][4],
        '', p_fence, v_worker, v_now, case v_sent when 1 then v_now end, v_now + p_call_for, v_timeout, v_window,
        v_settles, v_probe, 0, v_due, case when p_inputs[i][4] is not null then v_now end,
        case when p_inputs[i][4] is not null then p_frame end, 'worker', '', 0, 0, 0);
  end loop;

  insert into checkpoints_frame (tenant_id, run_id, n, generation, step_seq, kind, base_n, schema_version, sha, chain,
      plain_bytes, body, fence, created)
    values (p_tenant, p_run, p_frame, v_generation, nullif(v_step_seq, 0), p_frame_kind, p_base, p_schema, p_sha,
      p_chain, p_plain, p_body, p_fence, v_now);

  insert into runs_event (tenant_id, month, run_id, seq, kind, detail, body, tokens, at)
    values (p_tenant, p_month, p_run, v_event_seq - v_noted, 'turn', p_told, null, 0, v_now);
  if p_more is null then
    return case v_control when '' then (v_step_seq - p_starts + 1)::text
      else (v_step_seq - p_starts + 1) || ' ' || v_control end;
  end if;

  if v_noted > 0 then
    insert into runs_event (tenant_id, month, run_id, seq, kind, detail, body, tokens, at)
      select p_tenant, p_month, p_run, v_event_seq - v_noted + f.ord::int, 'entry', jsonb_build_object('n', f.e->'n'),
        p_entries[f.ord], (f.e->'tokens')::int, v_now
      from jsonb_array_elements(p_more->'entry') with ordinality as f(e, ord);
  end if;

  if p_more ? 'audit' then  -- effects only: claimed and settled are acts, not plain steps
    select r.audit_head as head, r.audit_seq as seq into run from runs_run r where r.id = p_run;
    for a in select x.* from jsonb_to_recordset(p_more->'audit') as x(action text, was text, now text, detail jsonb, begun text) loop
      if a.begun is not null then
        a.detail := a.detail || jsonb_build_object('seq', (select s.seq from runs_step s
          where s.run_id = p_run and s.generation = v_generation and s.identity = a.begun));
      end if;
      run.seq := run.seq + 1;
      run.head := agentstate_audit(p_tenant, 'run', p_run, run.seq, run.head, a.action, a.was, a.now, 'worker',
        coalesce(v_worker::text, ''), a.detail, null);
    end loop;
    update runs_run r set audit_head = run.head, audit_seq = run.seq where r.id = p_run;
  end if;

  return (v_step_seq - p_starts + 1)::text || case v_control when '' then '' else ' ' || v_control end;
end $$;

-- Whether a run with a budget may begin so many steps more, after what the turn has used.
create function runs_within_budget(r runs_run, p_starts int, p_tin bigint, p_tout bigint, p_cost float8,
  p_now timestamptz)
returns boolean language plpgsql stable as $$
begin
  return (r.budget_steps is null or r.step_seq + p_starts <= r.budget_steps)
    and (r.budget_tokens is null
         or r.tokens_in + r.tokens_out + coalesce(p_tin, 0) + coalesce(p_tout, 0) < r.budget_tokens)
    and (r.budget_cost is null or r.cost + coalesce(p_cost, 0) < r.budget_cost)
    and (r.budget_wall_s is null or p_now < r.started_at + make_interval(secs => r.budget_wall_s));
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
