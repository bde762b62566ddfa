-- Room on the page for the next versions of a row: every turn stays a HOT update.
alter table runs_run set (fillfactor = 70);
alter table runs_step set (fillfactor = 80);
