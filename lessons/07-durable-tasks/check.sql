-- What must hold at any moment.  Each query returns the rows that break its rule: none.

-- A task that runs or has run says who ran it and when.
select id, status, worker from task
where status in ('running', 'completed') and (worker is null or started_at is null);

-- A task that waits has no output and no end.
select id, status, output, finished_at from task
where status in ('queued', 'waiting') and (output is not null or finished_at is not null);

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

-- A task that runs has an alarm, and one that waits for its time as well; an ended one has none,
-- but for children that are to be cancelled.
select id, status, wake_at from task
where status = 'running' and wake_at is null
   or status = 'waiting' and wake_at is null and wake_on is null
   or status in ('completed', 'blocked') and wake_at is not null
   or status in ('failed', 'cancelled') and wake_at is not null
      and not exists (select from task as child where child.parent_id = task.id);

-- A task that waits for its children has one that has not ended, and is not past its mark.
select id, wakeups, wake_on from task
where status = 'waiting' and wake_at is null
  and (wakeups >= wake_on or not exists (
    select from task as child
    where child.parent_id = task.id and is_open(child.status)));

-- A child is in its parent's log exactly once.
select id, parent_id from task
where exists (select from task as parent where parent.id = task.parent_id)
  and (select count(*) from event where task_id = parent_id and child_id = task.id) <> 1;

-- No task has begun more attempts than it may.
select id, attempt, max_attempts from task where attempt > max_attempts;

-- A log has no holes: its events are numbered from 0.
select task_id, min(seq), max(seq), count(*) from event
group by task_id having min(seq) <> 0 or max(seq) + 1 <> count(*);

-- An event belongs to a task, and was written by an attempt that has begun.
select event.task_id, seq, event.attempt, task.attempt from event left join task on task.id = task_id
where task.id is null or event.attempt > task.attempt + (wake_on is not null)::int;

-- An event has a result or an error; a spawn has a child instead.
select task_id, seq, result, error, child_id from event
where kind <> 'spawn' and ((result is null) = (error is null) or child_id is not null)
   or kind = 'spawn' and (result is not null or error is not null or child_id is null);

-- A blocked task says why.
select id from task where status = 'blocked' and error is null;
