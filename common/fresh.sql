-- Drops the lesson's schema and creates it again, empty, in the transaction of the caller.  Its
-- name is the connection's application_name.  The comment tells ours from one that only bears
-- the name; the lock lasts as long as the connection and says that this lesson is running.

do $$
declare
    name  text := current_setting('application_name');
    ours  text := 'durable execution, the hard way: dropped and made anew by make run';
    there oid  := to_regnamespace(quote_ident(name));
begin
    if not pg_try_advisory_lock(hashtext(name)) then
        raise '% is in use: this lesson runs already', name
            using hint = 'wait for the other make run, make race or make break to end';
    end if;
    if there is not null and obj_description(there, 'pg_namespace') is distinct from ours then
        raise 'there is a schema % that is not ours', name
            using hint = 'rename it or drop it, or set DATABASE_URL to another database';
    end if;
    for tries in 1 .. 40 loop      -- one that was killed a moment ago has not left yet
        exit when not exists (
            select from pg_stat_activity
            where application_name = name and datname = current_database() and pid <> pg_backend_pid());
        if tries = 40 then
            raise 'a worker or another program of % is running', name
                using hint = 'stop it first: Ctrl-C in its terminal';
        end if;
        perform pg_sleep(0.05), pg_stat_clear_snapshot();
    end loop;
    set local lock_timeout = '5s';
    execute format('drop schema if exists %I cascade', name);
    execute format('create schema %I', name);
    execute format('comment on schema %I is %L', name, ours);
exception when lock_not_available then
    raise 'somebody is using the tables of %', name
        using hint = 'stop its workers, and end what is open in make psql';
end $$;
