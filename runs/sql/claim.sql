-- The plain claim: one call, one round trip, one commit. The run stands in the queue, its time has come, nothing was
-- asked of it, and its code is the one the worker registered (p_versions, beside p_agents). Everything else (a timer, a
-- takeover, a request, poison, other code) is the engine's to look at, under the same lock.
--
-- NULL = not free, or being taken; 0 = look closer; else the new fence.
create function runs_claim(p_tenant uuid, p_run uuid, p_worker uuid, p_agents text[], p_versions uuid[], p_claims_max int,
  p_lease_s float8)
returns bigint language plpgsql as $$
declare
  v_scope text := set_config('agentstate.tenant', p_tenant::text, true);
  v_now timestamptz := clock_timestamp();
  v_lives boolean := exists (select from runs_worker w where w.id = p_worker and w.dead_at is null);
  v_version uuid;
  run record;
begin
  select r.agent, r.status, r.control, r.claims, r.version_id, r.fence, r.frame_n, r.chain, r.event_seq, r.created_at,
      r.lease_until, r.due_at, r.audit_seq, r.audit_head,
      exists (select from runs_stop s where s.status = 'active' and s.agent in ('', r.agent)) as stopped,
      exists (select from runs_worker w where w.id = r.worker_id and w.dead_at is null) as held_by_a_living
    into run from runs_run r where r.id = p_run and not r.held
    for no key update of r skip locked;
  if not found or run.stopped or run.agent <> all (p_agents)
      or run.status not in ('queued', 'waiting', 'running')
      or (run.status <> 'running' and run.due_at > v_now)
      or (run.status = 'waiting' and run.due_at is null)
      or (run.status = 'running' and run.lease_until > v_now and run.held_by_a_living) then
    return null;
  end if;
  v_version := p_versions[array_position(p_agents, run.agent::text)];
  if run.status <> 'queued' or run.control <> '' or run.claims >= p_claims_max or not v_lives
      or v_version is null or run.version_id <> v_version then
    return 0;
  end if;

  update runs_run r set
      status = 'running', fence = r.fence + 1, worker_id = p_worker, version_id = v_version,
      lease_until = v_now + make_interval(secs => p_lease_s), claims = r.claims + 1, attempt = r.attempt + 1,
      started_at = coalesce(r.started_at, v_now), waiting_for = '', due_at = null, event_seq = r.event_seq + 1,
      audit_seq = run.audit_seq + 1,
      audit_head = agentstate_audit(p_tenant, 'run', p_run, run.audit_seq + 1, run.audit_head, 'run.running', 'queued',
        'running', 'worker', p_worker::text, jsonb_build_object('waiting_for', '', 'fence', run.fence, 'frame',
        run.frame_n, 'chain', encode(run.chain, 'hex')), null, 'worker')
    where r.id = p_run;
  insert into runs_event (tenant_id, month, run_id, seq, kind, detail, body, tokens, at)
    values (p_tenant, date_trunc('month', run.created_at at time zone 'UTC')::date, p_run, run.event_seq + 1, 'status',
      jsonb_build_object('from', 'queued', 'to', 'running', 'by', 'worker', 'waiting_for', ''), null, 0, v_now);
  return run.fence + 1;
end $$;
