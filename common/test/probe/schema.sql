create table thing (
    id    bigint generated always as identity primary key,
    label text not null,
    input json,
    made  timestamptz not null default now(),
    constraint label_is_short check (length(label) < 10)
);
