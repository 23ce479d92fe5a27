-- Lesson 01.  One table, so that there is something to lock.
--
-- This file is run again by every "make run", in a schema of its own (lesson_01) that is
-- dropped first: change it, run, look.

-- A task is something to be done for somebody, later.
create table task (
    id      bigint generated always as identity primary key,
    name    text not null,
    input   jsonb not null default 'null',
    status  text not null default 'queued',
    worker  text,

    constraint status_is_known check (status in ('queued', 'completed'))
);
