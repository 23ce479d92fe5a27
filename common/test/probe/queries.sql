-- A comment in front, with an @name and a ; in it.

-- name: AddThing :one
insert into thing (label, input)
values (@label, @input)   -- not a @parameter; nor an end
returning *;

-- name: CountThings :one
select count(*) as n, count(*) filter (where label =@label or label = @label) as same
from thing;

-- name: Operators :one
select '@name '';' as "a @name", $$ @name ; $$ as dollars, $x$ $$ @name $x$ as tagged,
       E'it\'s @name' as escaped, /* @name /* nested ; */ @name */
       array[1, 2] @> array[@small::int] as contains, array[1] <@array[1, 2] as within,
       @ -5 as abs, @größe::int as umlaut, 'a' || @text::text as joined;

-- name: ListThings :many
select id, label, input from thing order by id;

-- name: ChangeThings :exec
update thing set label = @label;

-- name: TwoRows :one
select generate_series(1, 2) as n;
