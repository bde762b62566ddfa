-- Room on the page for the next versions of a row: every turn stays a HOT update.
alter table runs_run set (fillfactor = 70);
alter table runs_step set (fillfactor = 80);
-- While a table is empty its indexes cost the planner the same, and of equals it takes the newest. Plans live as long
-- as their connection, so a turn would go through all steps of its run by another index. The key comes last.
alter table runs_run drop constraint runs_run_pkey, add primary key (id);
alter table runs_step drop constraint runs_step_pkey, add primary key (run_id, seq);
