-- Every statement that main.c sends, under the name by which main.c asks for it, in the order of
-- a task's life.

-- name: Begin :exec
begin;

-- name: Commit :exec
commit;

-- name: EnqueueTask :one
-- Part of the caller's transaction: nobody sees the task before that commits.
insert into task (queue, name, input, priority, timeout_ms)
values (@queue, @name, @input, @priority, @timeout_ms)
returning id;

-- name: ClaimTask :one
-- Two workers never get the same task, and none waits for another.  Of a limited queue it
-- gets nothing.
update task
set status = 'running', worker = @worker, started_at = now()
where id = any (array(
    select id
    from task
    where queue = @queue and status = 'queued'
      and not exists (select from permit where queue = @queue)
    order by priority desc, id
    limit 1
    for update
    skip locked))
returning id, name, input;

-- name: ClaimTaskWithPermit :one
-- On a limited queue the task comes with a free permit, or not at all; while a permit that was
-- retired is still in use, nothing new begins.
with free as (
    select n
    from permit
    where queue = @queue and task_id is null and not retired
      and not exists (
        select from permit
        where queue = @queue and task_id is not null and retired)
      and not exists (
        select from task
        where queue = @queue and status = 'running' and permit is null)
    order by n
    limit 1
    for update
    skip locked
), next as (
    select id
    from task
    where queue = @queue and status = 'queued'
      and exists (select from free)
    order by priority desc, id
    limit 1
    for update
    skip locked
), given as (
    update permit
    set task_id = next.id
    from free, next
    where permit.queue = @queue and permit.n = free.n
)
update task
set status = 'running', worker = @worker, started_at = now(), permit = (select n from free)
where id = any (array(select id from next))
returning id, name, input;

-- name: CompleteTask :exec
update task
set status = 'completed', output = @output, finished_at = now()
where id = @id and status = 'running';

-- name: FailTask :exec
update task
set status = 'failed', error = @error, finished_at = now()
where id = @id and status = 'running';

-- name: FailTaskOf :exec
-- A dead process cannot say what it ran, but its claim does.
update task
set status = 'failed', error = @error, finished_at = now()
where queue = @queue and worker = @worker and status = 'running';

-- name: LookForWork :one
-- For how many of so many idle slots is there a task, and a permit if it needs one?
select least(
    (select count(*) from (
        select from task where queue = @queue and status = 'queued' limit @idle::int) waiting),
    case when exists (select from permit where queue = @queue)
         then (select count(*) from permit
               where queue = @queue and task_id is null and not retired
                 and not exists (
                   select from permit
                   where queue = @queue and task_id is not null and retired))
         else @idle
    end) as tasks;

-- name: FindOverdue :many
-- Of the tasks that our slots run, those that have run for too long.
select id, timeout_ms
from task
where id = any (@ids::bigint[]) and status = 'running'
  and started_at + timeout_ms * interval '1 ms' < now();

-- name: LockLimit :exec
-- One change of a limit at a time.  The next statement looks when we have the lock: this one
-- has looked already.
insert into permit (queue, n, retired)
values (@queue, 0, true)
on conflict (queue, n) do update set retired = true;

-- name: SetLimit :exec
-- A permit in use cannot be taken away; it is retired, and not given again.
with more as (
    insert into permit (queue, n)
    select @queue, n
    from generate_series(1, @most::int) as n
    on conflict do nothing
)
update permit
set retired = n > @most
where queue = @queue and n = any (array(
    select n
    from permit
    where queue = @queue and n > 0 and retired <> (n > @most)
    order by n
    for update));

-- name: ListTasks :many
select id, queue, name, left(input::text, 40) as input, status, priority, worker,
       left(coalesce(error, output::text), 40) as outcome
from task
order by id desc
limit 40;

-- name: ShowTask :one
select id, queue, name, input, output, error, status, priority, worker,
       created_at, started_at, finished_at
from task
where id = @id;

-- name: CountUnfinished :one
select count(*) as n from task where status in ('queued', 'running');

-- name: CountRunning :one
select count(*) as n from task where status = 'running';

-- name: ListFailed :many
select id, name, input, status, error from task where status = 'failed' order by id;

-- name: CountByStatus :many
select queue, status, count(*) as tasks from task group by queue, status order by queue, status;

-- name: MostAtOnce :one
-- The most tasks of a queue that ran at any one moment: it is at the start of one of them.
select max((select count(*) from task
            where queue = @queue and started_at <= t.started_at
              and (finished_at is null or finished_at > t.started_at))) as most,
       count(distinct worker) as slots
from task t
where queue = @queue;

-- name: ListPermits :many
select queue, n, task_id, retired from permit where n > 0 order by queue, n;
