-- Every statement that main.c sends, under the name by which main.c asks for it, in the order of
-- a task's life.

-- name: Begin :exec
begin;

-- name: Commit :exec
commit;

-- name: Rollback :exec
rollback;

-- name: EnqueueTask :one
-- Part of the caller's transaction: nobody sees the task before that commits.
insert into task (queue, name, input, priority)
values (@queue, @name, @input, @priority)
returning id;

-- name: ClaimTask :one
-- Two workers never get the same task, and none waits for another.
update task
set status = 'running', worker = @worker, started_at = now()
where id = any (array(
    select id
    from task
    where queue = @queue and status = 'queued'
    order by priority desc, id
    limit 1
    for update
    skip locked))
returning id, name, input;

-- name: CompleteTask :exec
update task
set status = 'completed', output = @output, finished_at = now()
where id = @id and status = 'running';

-- name: FailTask :exec
update task
set status = 'failed', error = @error, finished_at = now()
where id = @id and status = 'running';

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

-- name: CountByStatus :many
select status, count(*) as tasks from task group by status order by status;

-- name: CountByWorker :many
select worker, count(*) as tasks, sum((status = 'failed')::int) as failed
from task
group by worker
order by worker;

-- name: ListFailed :many
select id, name, input, status, error from task where status = 'failed' order by id;

-- name: ListRunning :many
select id, name, status, worker from task where status = 'running' order by id;

-- name: MaxConnections :one
select current_setting('max_connections')::int as n;

-- name: WriteLetter :exec
insert into letter (recipient, worker) values (@recipient, @worker);

-- name: CountLetters :one
select count(*) as letters, count(distinct recipient) as recipients from letter;

-- name: AddPurchase :exec
insert into purchase (id, amount) values (@id, @amount);

-- name: CountPurchases :one
select (select count(*) from purchase where id = @id::text) as purchases,
       (select count(*) from task where input ->> 'purchase' = @id) as tasks;
