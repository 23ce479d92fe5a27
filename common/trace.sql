-- A task as a picture: make trace ID=1.  All of it is drawn here, from the rows that there are: the task, its
-- log and its children.
--
-- A lane is a claim that wrote something, or the last one: who had the task, since when, and what he added to the
-- log, each box from the event before.  What he found in the log stands dimmed before it.  A claim that wrote
-- nothing has left no trace, but for the number of the next attempt.

\set QUIET on
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
select not exists (select from task where id = :id) as missing \gset
\if :missing
\q
\endif
begin;

-- Every moment at which something happened has its place from left to right.  A pause is drawn by its logarithm:
-- most tasks work for milliseconds and wait for seconds.
create temp table moment as
with seen (t) as (
    select unnest(array[created_at, started_at, finished_at]) from task where id = :id
    union select unnest(array[claimed_at, at]) from event where task_id = :id
    union select unnest(array[created_at, started_at, finished_at]) from task where to_jsonb(task) ->> 'parent_id' = :'id'
    union select now() from task where id = :id and finished_at is null
), step as (
    select t, coalesce(1 + ln(1 + extract(epoch from t - lag(t) over (order by t)) * 1000), 0) as width
    from seen where t is not null
)
select t, 200 + 750 * sum(width) over (order by t) / greatest(sum(width) over (), 1) as x from step;

create function pg_temp.x(timestamptz) returns float language sql as $$ select x from moment where t = $1 $$;

create function pg_temp.xml(text) returns text language sql as $$
    select replace(replace(replace(coalesce($1, ''), '&', '&amp;'), '<', '&lt;'), '"', '&quot;')
$$;

create function pg_temp.label(x float, y float, what text, how text default '') returns text language sql as $$
    select format('<text x="%s" y="%s" %s>%s</text>', round(x::numeric, 1), y, how, pg_temp.xml(what))
$$;

create function pg_temp.cut(word text, room int) returns text language sql as $$
    select case when length(word) > room then left(word, greatest(room - 1, 1)) || '…' else word end
$$;

-- With a word in it, as far as there is room.
create function pg_temp.box(x1 float, x2 float, y float, class text, word text, tip text) returns text language sql as $$
    select format('<g><title>%s</title><rect x="%s" y="%s" width="%s" height="20" rx="3" class="%s"/>%s</g>',
                  pg_temp.xml(tip), round(x1::numeric, 1), y, round(greatest(x2 - x1 - 1, 3)::numeric, 1), class,
                  case when x2 - x1 > 16 then pg_temp.label(x1 + 4, y + 14, pg_temp.cut(word, ((x2 - x1 - 9) / 6.2)::int), 'class="in"') end)
$$;

create function pg_temp.cross(x float, y float) returns text language sql as $$
    select format('<g><title>an attempt did not come to its end</title><path d="M %s %s l 12 12 m 0 -12 l -12 12" class="crash"/></g>',
                  round((x - 6)::numeric, 1), y - 6)
$$;

create function pg_temp.dashes(x1 float, x2 float, y float) returns text language sql as $$
    select format('<line x1="%s" y1="%s" x2="%s" y2="%s" class="waits"/>', round(x1::numeric, 1), y, round(greatest(x2, x1)::numeric, 1), y)
$$;

with this as (
    select * from task where id = :id
), entry as (
    select event.*, (to_jsonb(event) ->> 'child_id')::bigint as child,
           coalesce(lag(at) over (partition by claimed_at order by seq), claimed_at) as since
    from event where task_id = :id
), lane as (
    select claimed_at, worker, attempt, max(at) as until
    from entry where claimed_at is not null
    group by claimed_at, worker, attempt
    union all
    select started_at, worker, attempt, coalesce(finished_at, case when status = 'running' then now() end, started_at)
    from this
    where started_at is not null and not exists (select from entry where entry.claimed_at = started_at)
), lanes as (
    select lane.*, row_number() over w as n, 62 + 46 * row_number() over w as y,
           lead(claimed_at) over w as next, lead(attempt) over w as next_attempt
    from lane window w as (order by claimed_at)
), child as (
    select task.*, 74 + 46 * (select count(*) from lanes) + 24 * row_number() over (order by seq) as y,
           row_number() over (order by seq) as n
    from entry join task on task.id = entry.child
), size as (
    select 116 + 46 * (select count(*) from lanes) + 24 * least((select count(*) from child), 40) as height
), line (place, svg) as (
    select 0, format('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 %s" font-family="sans-serif" font-size="12">', height) || $$
<style>
svg { color-scheme: light dark }
text { fill: #222 } .in { fill: #fff; font-size: 11px } .small { font-size: 10px; fill: #777 } .title { font-weight: bold; font-size: 14px }
.step { fill: #1f5f8b } .spawn { fill: #6b4f9a } .version { fill: #4d7a4d } .failed { fill: #b03a2e } .old { fill: #9aa5ad; opacity: .7 }
.child { fill: #6b4f9a } .open { fill: #c77d2e } .lane { stroke: #ccc } .waits { stroke: #c77d2e; stroke-width: 2; stroke-dasharray: 5 4 }
.crash { stroke: #b03a2e; stroke-width: 3; fill: none } .end { font-size: 16px }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .in { fill: #fff } .small { fill: #999 } .lane { stroke: #555 } .old { fill: #6c757d } }
</style>$$
    from size
    union all
    select 1, pg_temp.label(10, 22, format('Task %s: %s, %s', id, name, status), 'class="title"')
              || pg_temp.label(10, 40, 'input ' || left(input::text, 110), 'class="small"')
              || pg_temp.label(10, 54, left(coalesce('error: ' || error, 'output ' || output::text), 140), 'class="small"')
    from this
    union all   -- who had it
    select 2, pg_temp.label(10, y + 4, format('attempt %s', attempt)) || pg_temp.label(10, y + 17, worker, 'class="small"')
              || format('<line x1="200" y1="%s" x2="950" y2="%s" class="lane"/>', y, y)
    from lanes
    union all   -- it waits: to be taken up for the first time; and then parked, or for its next attempt
    select 3, pg_temp.dashes(200, pg_temp.x(claimed_at), y) from lanes where n = 1
    union all
    select 3, pg_temp.dashes(pg_temp.x(until), pg_temp.x(next), y) from lanes where next_attempt <= attempt
    union all
    select 3, pg_temp.dashes(pg_temp.x(until), (pg_temp.x(until) + pg_temp.x(next)) / 2 - 8, y) from lanes where next_attempt > attempt
    union all
    select 3, pg_temp.dashes(pg_temp.x(until), 950, y)
    from lanes, this where next is null and finished_at is null and status <> 'running'
    union all   -- there was a later attempt: somewhere here one was lost
    select 4, pg_temp.cross((pg_temp.x(until) + pg_temp.x(next)) / 2, y) from lanes where next_attempt > attempt
    union all   -- or before the first that has left a trace
    select 4, pg_temp.cross((200 + pg_temp.x(claimed_at)) / 2, y) from lanes where n = 1 and attempt > 1
    union all   -- what it found in the log
    select 4, pg_temp.box(pg_temp.x(lanes.claimed_at) - 5 * rank, pg_temp.x(lanes.claimed_at) - 5 * rank + 5, y - 10, 'old', '',
                          format('found in the log: event %s, %s %s', seq, kind, entry.name))
    from lanes
    join lateral (select *, row_number() over (order by seq desc) as rank
                  from entry where entry.claimed_at < lanes.claimed_at) as entry on true
    where rank <= 20
    union all   -- what it added
    select 5, pg_temp.box(pg_temp.x(since), pg_temp.x(at), y - 10, case when error is not null then 'failed' else kind end, name,
                          format('event %s: %s %s %s -> %s', seq, kind, name, input, coalesce(result::text, error, 'task ' || child)))
    from entry join lanes using (claimed_at)
    union all   -- a task without a log: its last run
    select 5, pg_temp.box(pg_temp.x(claimed_at), pg_temp.x(until), y - 10, case when status in ('failed', 'cancelled') then 'failed' else 'step' end,
                          name, format('%s -> %s', name, coalesce(error, output::text, status)))
    from lanes, this
    where next is null and until > claimed_at and not exists (select from entry)
    union all   -- and its end
    select 6, pg_temp.label(954, y + 5, case status when 'completed' then '✓' when 'failed' then '✗' when 'blocked' then '!' end, 'class="end"')
    from lanes, this where next is null
    union all   -- the children
    select 7, pg_temp.label(10, y + 2, format('%s %s', id, name))
              || pg_temp.dashes(pg_temp.x(created_at), coalesce(pg_temp.x(started_at), pg_temp.x(finished_at), 950), y - 2)
              || case when attempt > 1 and started_at is not null
                      then pg_temp.cross((pg_temp.x(created_at) + pg_temp.x(started_at)) / 2, y - 2) else '' end
              || case when started_at is null then '' else
                 pg_temp.box(pg_temp.x(started_at), coalesce(pg_temp.x(finished_at), 950), y - 12,
                                      case when status in ('failed', 'cancelled') then 'failed'
                                           when finished_at is null then 'open' else 'child' end,
                                      coalesce(error, output::text, status),
                                      format('task %s, %s: %s in attempt %s -> %s', id, name, status, attempt, coalesce(error, output::text))) end
    from child where n <= 40
    union all   -- when, and how long
    select 8, pg_temp.label(200, height - 8, min(t)::time(3)::text, 'class="small"')
              || pg_temp.label(950, height - 8, format('%s ms later (pauses are drawn by their logarithm)', round(extract(epoch from max(t) - min(t)) * 1000, 1)),
                               'class="small" text-anchor="end"')
              || case when (select count(*) from child) > 40
                      then pg_temp.label(10, height - 8, format('and %s more', (select count(*) - 40 from child)), 'class="small"') else '' end
    from moment, size group by height
    union all
    select 9, '</svg>'
)
select string_agg(svg, E'\n' order by place) from line;
commit;
