-- What a step is never changes: identity, payload and a terminal status with its result. A trigger of columns is not
-- looked at by an update that sets none of them, and a WHEN clause is parsed anew by every update that does, so what a
-- plain turn never sets stands apart from what it does, and that one asks in its function, whose plan is kept.
create function runs_step_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'step % of run % is frozen', old.seq, old.run_id using errcode = 'AS002';
end $$;
create trigger runs_step_frozen
  before update of identity, generation, name, kind, effect, payload_hash, key, fence on runs_step for each row
  when (old.identity is distinct from new.identity or old.generation is distinct from new.generation
        or old.name is distinct from new.name or old.kind is distinct from new.kind
        or old.effect is distinct from new.effect
        or (old.payload_hash is distinct from new.payload_hash and old.edit_version is not distinct from new.edit_version)
        or (old.key is distinct from new.key and old.edit_version is not distinct from new.edit_version
            and old.retry is not distinct from new.retry)
        or new.fence < old.fence
        or (old.status in ('done', 'rejected', 'skipped') and new.fence is distinct from old.fence))
  execute function runs_step_refuse();
create function runs_step_refuse_over() returns trigger language plpgsql as $$
begin
  if old.status = 'started' then  -- short, for a long condition is dear to set up
    return new;
  end if;
  if old.status in ('done', 'rejected', 'skipped')
      and (new.status is distinct from old.status or new.output is distinct from old.output
           or new.output_hash is distinct from old.output_hash) then
    raise exception 'step % of run % is frozen', old.seq, old.run_id using errcode = 'AS002';
  end if;
  return new;
end $$;
create trigger runs_step_over before update of status, output, output_hash on runs_step for each row
  execute function runs_step_refuse_over();

create function runs_run_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'the fence of run % never falls', old.id using errcode = 'AS003';
end $$;
create trigger runs_run_fence before update of fence, agent on runs_run for each row
  when (new.fence < old.fence or old.agent is distinct from new.agent)
  execute function runs_run_refuse();
