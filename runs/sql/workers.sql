-- Machine facts, not a tenant's rows; but a worker over HTTP is shown to its own tenant only.
alter table runs_worker enable row level security;
alter table runs_worker force row level security;
create policy worker_read on runs_worker for select
  using (for_tenant is null or for_tenant = nullif(current_setting('agentstate.tenant', true), '')::uuid);
create policy worker_write on runs_worker for all
  using (for_tenant is null or for_tenant = nullif(current_setting('agentstate.tenant', true), '')::uuid);
create policy sweeper on runs_worker for select to agentstate_sweeper using (true);
grant select on runs_worker to agentstate_sweeper;
