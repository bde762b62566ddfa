drop trigger runs_step_over on runs_step;
drop trigger runs_step_frozen on runs_step;
drop function runs_step_refuse_over();
drop function runs_step_refuse();
drop trigger runs_run_fence on runs_run;
drop function runs_run_refuse();
