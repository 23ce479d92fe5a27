-- Every statement that main.c sends, under the name by which main.c asks for it, in the order of
-- a task's life.

-- name: Begin :exec
begin;

-- name: Commit :exec
commit;

-- name: EnqueueTask :one
-- Part of the caller's transaction: nobody sees the task before that commits.  Of two with
-- the same key, the second gets the id of the first, also when both come at once.
insert into task (queue, name, input, priority, timeout_ms, patience_ms, key, status, wake_at)
values (@queue, @name, @input, @priority, @timeout_ms, @patience_ms, @key,
        case when @delay_ms::int > 0 then 'waiting' else 'queued' end,
        now() + coalesce(nullif(@delay_ms::int, 0), @patience_ms::int) * interval '1 ms')
on conflict (queue, key) where key is not null do update set key = excluded.key
returning id;

-- name: ClaimTask :one
-- Two workers never get the same task, and none waits for another.  Of a limited queue it
-- gets nothing.
update task
set status = 'running', worker = @worker, started_at = now(),
    attempt = attempt + 1, claim = gen_random_uuid(),
    wake_at = now() + @lease_ms::int * interval '1 ms'
where id = any (array(
    select id
    from task
    where queue = @queue and status = 'queued' and (wake_at is null or wake_at > now())
      and not exists (select from permit where queue = @queue)
    order by priority desc, id
    limit 1
    for update
    skip locked))
returning id, name, input, attempt, max_attempts, claim;

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
    where queue = @queue and status = 'queued' and (wake_at is null or wake_at > now())
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
set status = 'running', worker = @worker, started_at = now(), permit = (select n from free),
    attempt = attempt + 1, claim = gen_random_uuid(),
    wake_at = now() + @lease_ms::int * interval '1 ms'
where id = any (array(select id from next))
returning id, name, input, attempt, max_attempts, claim;

-- name: LoadLog :many
-- A statement of its own: a claim can return a row that is newer than its own snapshot.
select seq, kind, name, input, result, error
from event
where task_id = @id
order by seq;

-- name: RecordEvent :one
-- The fence, for a log.  The task's row is locked, and not only looked at: else the claim could
-- be lost between the look and the insert.
insert into event (task_id, seq, kind, name, input, result, error, attempt, worker, claimed_at)
select id, @seq::int, @kind, @name, @input, @result, @error, attempt, worker, started_at
from task
where id = @id and claim = @claim
for no key update
returning result;

-- name: PauseStep :one
-- Before a step is tried again.
select (extract(epoch from back_off(@tries, @backoff_ms)) * 1000)::int as ms;

-- name: CompleteTask :exec
-- The fence: whoever has lost the claim changes no row, and learns of it.
update task
set status = 'completed', output = @output, error = null, finished_at = now(),
    claim = null, wake_at = null
where id = @id and claim = @claim;

-- name: BlockTask :exec
-- Neither failed nor tried again.  Its log is kept, for retry.
update task
set status = 'blocked', error = @error, claim = null, wake_at = null
where id = @id and claim = @claim;

-- name: EndAttempt :one
-- Failed.  Again later, if there is an attempt left and @again says that it makes sense.
with this as (
    select id, attempt, attempt < max_attempts and @again::int = 1 as again
    from task
    where id = @id and claim = @claim
    for no key update
)
update task
set status = case when again then 'waiting' else 'failed' end,
    wake_at = case when again then now() + back_off(this.attempt, @backoff_ms) end,
    finished_at = case when not again then now() end,
    error = @error, claim = null
from this
where task.id = this.id
returning status, coalesce(extract(epoch from wake_at - now()) * 1000, 0)::int as again_in_ms;

-- name: EndAttemptOf :many
-- A dead process cannot say what it ran, but the worker in the row does.
with this as (
    select id, attempt, attempt < max_attempts as again
    from task
    where queue = @queue and worker = @worker and status = 'running'
    for no key update
)
update task
set status = case when again then 'waiting' else 'failed' end,
    wake_at = case when again then now() + back_off(this.attempt, @backoff_ms) end,
    finished_at = case when not again then now() end,
    error = @error, claim = null
from this
where task.id = this.id
returning task.id, status;

-- name: AnyDue :one
-- What an idle worker asks on each tick.
select exists (select from task where wake_at <= now())::int as due;

-- name: WakeTasks :many
-- Past its alarm, and may go on.  Recovery is a property of the rows: any lookout can do it.
with expired as (
    select id, status, patience_ms, permit
    from task
    where wake_at <= now() and (status = 'waiting' or status = 'running' and attempt < max_attempts)
    order by wake_at
    limit 1000
    for update
    skip locked
)
update task
set status = 'queued', claim = null, wake_at = now() + expired.patience_ms * interval '1 ms',
    error = case when expired.status = 'running' then 'its worker was lost' else task.error end
from (select * from expired order by permit) as expired    -- as SetLimit does: no deadlock
where task.id = expired.id
returning task.id, expired.status as was;

-- name: GiveUpTask :one
-- Past its alarm, and may not: its attempts are used up, or its patience.
with expired as (
    select id, status
    from task
    where wake_at <= now() and (status = 'queued' or status = 'running' and attempt >= max_attempts)
    order by wake_at
    limit 1
    for update
    skip locked
)
update task
set status = 'failed', finished_at = now(), claim = null, wake_at = null,
    error = case expired.status when 'running' then 'its worker was lost'
                                else 'it waited too long in the queue' end
from expired
where task.id = expired.id
returning task.id, task.error;

-- name: RenewLease :exec
select renew_lease(@id, @worker, @lease_ms);

-- name: FindDoomed :one
-- Is the process that runs this task to be stopped?
select case when task.id is null then 'its row is gone'
            when status = 'cancelled' then 'it was cancelled'
            when status = 'queued' or task.worker <> mine.worker then 'its claim was lost'
            else 'it took longer than its timeout' end as why
from (values (@id::bigint, @worker)) as mine (id, worker)
left join task on task.id = mine.id
where task.id is null or status in ('queued', 'cancelled')
   or status = 'running' and (task.worker <> mine.worker
                              or started_at + timeout_ms * interval '1 ms' < now());

-- name: CancelTask :one
-- At once; a process that runs it is stopped by its lookout's next tick.
update task
set status = 'cancelled', error = 'cancelled', finished_at = now(), claim = null, wake_at = null
where id = @id and status in ('queued', 'waiting', 'running', 'blocked')
returning id;

-- name: RetryTask :one
update task
set status = 'queued', error = null, finished_at = null,
    wake_at = now() + patience_ms * interval '1 ms',
    max_attempts = greatest(max_attempts, attempt + 1)
where id = @id and status in ('failed', 'blocked', 'cancelled')
returning id;

-- name: ReplayTask :one
update task
set status = 'queued', output = null, error = null, finished_at = null,
    wake_at = now() + patience_ms * interval '1 ms',
    max_attempts = greatest(max_attempts, attempt + 1)
where id = @id and status in ('completed', 'failed', 'blocked', 'cancelled')
returning id;

-- name: EmptyLog :exec
-- In ReplayTask's transaction, which has locked the task.
delete from event where task_id = @id;

-- name: ExportTask :one
-- A task and its log, as replay-check reads them: JSON, an event a line.
select format(E'{"name": %s, "attempt": %s, "input": %s, "events": [\n%s\n]}',
              to_json(name), attempt, input, (
    select string_agg(json_build_object('kind', kind, 'name', name, 'input', input,
                                        'result', result, 'error', error)::text, E',\n' order by seq)
    from event
    where task_id = task.id)) as kept
from task
where id = @id;

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
select id, queue, name, left(input::text, 30) as input, status, attempt, priority, worker,
       left(coalesce(error, output::text), 40) as outcome
from task
order by id desc
limit 40;

-- name: ShowTask :one
-- Why is it not moving?
select id, queue, name, input, status, attempt || ' of ' || max_attempts as attempt, output, error,
       case
           when status = 'waiting' and attempt = 0 then 'its time'
           when status = 'waiting' then 'its next attempt'
           when status = 'running' then 'its worker, ' || worker
           when status = 'blocked' then 'a repair of its function'
           when status <> 'queued' then null
           when (select bool_and(task_id is not null or retired)
                        or bool_or(task_id is not null and retired)
                 from permit
                 where permit.queue = task.queue) then 'a permit of its queue'
           else 'a worker with a free slot'
       end as waits_for,
       round(extract(epoch from now() - coalesce(finished_at, started_at, created_at)), 1) as for_s,
       round(extract(epoch from wake_at - now()), 1) as alarm_in_s,
       created_at, started_at, finished_at
from task
where id = @id;

-- name: ShowLog :many
select seq, kind, name, left(input::text, 30) as input, left(result::text, 40) as result,
       left(error, 60) as error, attempt, at::time(0)
from event
where task_id = @id
order by seq;

-- name: OldestSnapshot :one
-- The oldest open transaction in this database keeps dead rows of all tables alive.
select coalesce(max(extract(epoch from now() - xact_start))::int, 0) as age_s
from pg_stat_activity
where datname = current_database() and backend_xmin is not null and pid <> pg_backend_pid();

-- name: CountUnfinished :one
select count(*) as n from task where status in ('queued', 'running', 'waiting');

-- name: Charge :exec
-- An effect on the world: the same key pays once, and it is counted how often it was asked for.
insert into payment (order_id, idempotency_key, amount) values (@order_id, @key, @amount)
on conflict (idempotency_key) do update set tries = payment.tries + 1;

-- name: ListPermits :many
select queue, n, task_id, retired from permit where n > 0 order by queue, n;
