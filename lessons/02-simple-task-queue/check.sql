-- What must hold at any moment.  Each query returns the rows that break its rule: none.

-- A task that runs or has run says who ran it and when.
select id, status, worker from task
where status <> 'queued' and (worker is null or started_at is null);

-- A task that waits has not begun and has no outcome.
select id, status, started_at, output, error from task
where status = 'queued' and (started_at is not null or output is not null or error is not null);

-- A completed task has an output, a failed one an error, and both an end.
select id, status, output, error, finished_at from task
where status = 'completed' and (output is null or error is not null or finished_at is null)
   or status = 'failed' and (error is null or output is not null or finished_at is null);
