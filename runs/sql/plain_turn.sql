-- The plain turn: one plain step begins, the one before it ends (p_end, unless it is the first), and nothing else. Nearly
-- every turn is one. NULL = nothing was written: runs_turn looks closer (fenced out, refused, stale, landed before, a
-- budget, a stop of whichever agent). What both write is the same.
--
-- What an expression costs is to set it up: each operator, function, element of an array and condition is looked up,
-- checked for rights and made anew by each execution. So there are no loops, no arrays and no defaults here.
create function runs_turn_plain(p_tenant uuid, p_run uuid, p_fence bigint, p_lease interval, p_call_for interval,
  p_month date, p_frame int, p_base int, p_frame_kind text, p_schema int, p_plain int, p_body bytea, p_sha bytea,
  p_chain bytea, p_end int, p_output bytea, p_output_hash bytea, p_identity text, p_name text, p_kind text,
  p_effect text, p_payload_hash bytea, p_input bytea, p_told jsonb)
returns int language plpgsql as $$
declare
  v_scope text := set_config('agentstate.tenant', p_tenant::text, true);
  v_now timestamptz := clock_timestamp();
  v_generation int;
  v_seq int;
  v_event_seq int;
  v_worker uuid;
begin
  update runs_run r set
      lease_until = v_now + p_lease, frame_n = p_frame, chain = p_chain, claims = 0, step_seq = r.step_seq + 1,
      event_seq = r.event_seq + 1
    where r.id = p_run and r.fence = p_fence and r.status = 'running' and r.lease_until > v_now
      and r.frame_n = p_frame - 1 and r.control = '' and r.budget_steps is null and r.budget_tokens is null
      and r.budget_cost is null and r.budget_wall_s is null
      and not exists (select from runs_stop s where s.status = 'active')
    returning r.generation, r.step_seq, r.event_seq, r.worker_id into v_generation, v_seq, v_event_seq, v_worker;
  if not found then
    return null;
  end if;

  update runs_step set
      status = 'done', outcome = 'done', output = p_output, output_hash = p_output_hash, ended_at = v_now,
      end_frame = p_frame
    where run_id = p_run and seq = p_end and fence = p_fence and status = 'started';
  if not found and p_end is not null then
    raise exception 'a finished step of run % is not started under fence %', p_run, p_fence using errcode = 'AS001';
  end if;

  insert into runs_step (tenant_id, run_id, seq, generation, identity, name, kind, effect, status, outcome, attempt,
      retry, edit_version, authorised, sent, payload_hash, input, error_type, fence, worker_id, started_at, call_by,
      has_probe, probes_unknown, source, model, tokens_in, tokens_out, cost)
    values (p_tenant, p_run, v_seq, v_generation, p_identity, p_name, p_kind, p_effect, 'started', '', 1, 0, 0, 0, 0,
      p_payload_hash, p_input, '', p_fence, v_worker, v_now, v_now + p_call_for, false, 0, 'worker', '', 0, 0, 0);
  insert into checkpoints_frame (tenant_id, run_id, n, generation, step_seq, kind, base_n, schema_version, sha, chain,
      plain_bytes, body, fence, created)
    values (p_tenant, p_run, p_frame, v_generation, v_seq, p_frame_kind, p_base, p_schema, p_sha, p_chain, p_plain,
      p_body, p_fence, v_now);
  insert into runs_event (tenant_id, month, run_id, seq, kind, detail, tokens, at)
    values (p_tenant, p_month, p_run, v_event_seq, 'turn', p_told, 0, v_now);
  return v_seq;
end $$;
