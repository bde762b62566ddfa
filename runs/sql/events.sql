-- Partitions by the month of the run. No DEFAULT partition: a row in it would block that month's creation. No grant
-- on a partition: read directly it would have no policy. The application may only ask for months ahead.
create function runs_ensure_partitions(p_months int) returns int
language plpgsql security definer set search_path = public, pg_temp as $$
declare v_month date := date_trunc('month', now() - interval '1 month')::date; v_made int := 0; v_name text;
begin
  if p_months not between 1 and 24 then
    raise exception 'ask for 1 to 24 months';
  end if;
  perform set_config('lock_timeout', '2s', true);
  for i in 0..p_months loop
    v_name := 'runs_event_' || to_char(v_month, 'YYYY_MM');
    if to_regclass('public.' || v_name) is null then
      execute format('create table %I partition of runs_event for values from (%L) to (%L)',
        v_name, v_month, (v_month + interval '1 month')::date);
      v_made := v_made + 1;
    end if;
    v_month := (v_month + interval '1 month')::date;
  end loop;
  return v_made;
end $$;
select runs_ensure_partitions(13);
