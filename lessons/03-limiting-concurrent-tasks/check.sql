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

-- A permit that is given belongs to a task of its queue that runs, and that task knows it.
select permit.queue, permit.n, permit.task_id, task.status, task.permit
from permit left join task on task.id = permit.task_id
where permit.task_id is not null
  and (task.status, task.queue, task.permit) is distinct from ('running', permit.queue, permit.n);

-- A task that has a permit runs, and the permit is given to it.
select task.id, task.status, task.permit, permit.task_id
from task left join permit on permit.queue = task.queue and permit.n = task.permit
where task.permit is not null and (task.status <> 'running' or task.id is distinct from permit.task_id);
