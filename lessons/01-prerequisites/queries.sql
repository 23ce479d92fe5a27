-- Every statement that main.c sends, under the name by which main.c asks for it.

-- name: Begin :exec
begin;

-- name: Commit :exec
commit;

-- name: Rollback :exec
rollback;

-- name: AddTask :one
insert into task (name, input)
values (@name, @input)
returning id, input;

-- name: CountTasks :one
select count(*) as n from task;

-- name: TakeTask :one
-- Locks the first task that is not done.  A second caller waits for the first one.
select id
from task
where status = 'queued'
order by id
limit 1
for update;

-- name: TakeTaskSkipLocked :one
-- The same, but a task that somebody else has locked is passed over.
select id
from task
where status = 'queued'
order by id
limit 1
for update
skip locked;

-- name: FinishTask :exec
update task
set status = 'completed', worker = @worker
where id = @id;

-- name: CountWaiting :one
-- How many of our processes wait for a lock at this moment?  Postgres knows.
select count(*) as n
from pg_stat_activity
where application_name = current_setting('application_name')
  and cardinality(pg_blocking_pids(pid)) > 0;

-- name: ListTasks :many
select id, name, input, status, worker
from task
order by id;

-- name: EmptyTable :exec
truncate task restart identity;
