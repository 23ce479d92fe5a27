#include "db.h"

#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"
#include "memory.h"

typedef struct Prepared {
    const Statement *statement;
    const char *name;  // as Postgres knows it
    int columns;
    char parameter_type[MOST_PARAMETERS];  // 'i', 'j' or 't'
    char *column_type;
    const char **column;
    int number;
    struct Prepared *next;
} Prepared;

/* A statement with its arguments. */
typedef struct {
    const Prepared *what;
    const char *here, *value[MOST_PARAMETERS];
    char how;  // how to crash when it is done, or 0
} Call;

struct Db {
    PGconn *conn;
    bool *ready;       // by a statement's number: prepared on this connection
    Call also;         // waits for the next statement; of nothing: there is none
    int also_changed;  // rows, by the last one
};

#define FRESH "../../common/fresh.sql"

/* All of queries.sql, described once for the process and its forks. */
static Prepared *prepared;
static int prepared_count;

static bool is_done(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* ---- errors ---- */

static char *with(const char *before, const char *text)
{
    return text && *text ? format("\n    %s%s", before, text) : "";
}

/* The function in which it happened, if it was one: "PL/pgSQL function f() line 5 ...". */
static const char *function_of(const PGresult *result)
{
    const char *context = PQresultErrorField(result, PG_DIAG_CONTEXT), *function;
    if (!context) return NULL;
    function = strstr(context, "PL/pgSQL function ");
    if (!function) function = strstr(context, "SQL function ");
    return function ? format("in %s", first_line(function)) : NULL;
}

static bool made_anew;  // the tables, from schema.sql as it is

static const char *advice(const PGresult *result, const Statement *s)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *rule = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
    if (!state) return NULL;
    bool not_there = !strcmp(state, "42P01") || !strcmp(state, "42703") ||
                     !strcmp(state, "42883");  // a table, a column, a function
    if (s->name && not_there && !made_anew)
        return "if schema.sql has it: make reset makes the tables anew";
    if (!strcmp(state, "23514") && rule) return format("see %s in schema.sql", rule);
    return NULL;
}

static _Noreturn void die_of(Db *db, const PGresult *result, const Statement *s,
                             const char *here)
{
    const char *what = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(db->conn) == CONNECTION_BAD)
        die("lost the connection to Postgres%s%s: %s", here ? " at " : "",
            here ? here : "", first_line(PQerrorMessage(db->conn)));
    if (!what) die_at(s, 0, "copy, or no statement at all: neither can run here", "");
    what = first_line(what);
    if (strstr(what, "cannot insert multiple commands"))
        what = "two statements under one name: is a \"-- name:\" line missing, or "
               "misspelt?";
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    if (!strcmp(s->file->path, FRESH) && state && !strcmp(state, "P0001"))
        die("%s%s", what, with("", hint));  // what fresh.sql raises
    const char *place = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    if (!hint) hint = advice(result, s);
    if (!place && here)  // the text is not to blame: a line, for a worker's log
        die("%s: %s: %s%s (called at %s)%s%s", sql_place(s->file, s->start), s->name,
            what, hint ? format(" (%s)", hint) : "", here,
            with("", function_of(result)), with("", detail));
    die_at(s, place ? atoi(place) : 0, what,
           format("%s%s%s%s", with("", detail), with("hint: ", hint),
                  with("", function_of(result)), with("called at ", here)));
}

/* ---- crash points ---- */

static const char *crash_who;  // whom CRASH_AT is meant for; NULL: nobody
static int crash_n, crash_in;  // at which statement, and how many from now; 0: never
static char crash_how;         // 'b'efore, 'a'fter, 'l'ost, 'f'reeze

static void read_crash_plan(void)
{
    const char *plan = getenv("CRASH_AT");
    if (!plan || crash_who) return;
    const char *colon = strchr(plan, ':'), *number = plan;
    if (colon && !strchr("0123456789", *plan)) number = colon + 1;
    char *how;
    long n = strtol(number, &how, 10);
    if (n < 1 || n > 1000000 ||
        (*how && strcmp(how, ":after") && strcmp(how, ":lost") &&
         strcmp(how, ":freeze")))
        die_usage(
            "CRASH_AT is [WHO:]N, or this with :after, :lost or :freeze, not \"%s\"",
            plan);
    crash_who = copy_text(plan, number == plan ? 0 : (size_t)(colon - plan));
    crash_n = (int)n;
    crash_how = *how ? how[1] : 'b';
}

void arm_crash(const char *who)
{
    if (crash_who && !strcmp(crash_who, who)) crash_in = crash_n;
}

static void crash(const char *when, const char *statement)
{
    say("CRASH_AT: SIGKILL %s %s", when, statement);
    raise(SIGKILL);
}

static void freeze(const char *statement)
{
    say("CRASH_AT: SIGSTOP before %s", statement);
    raise(SIGSTOP);
}

/* ---- connecting ---- */

/* What a queue wants from its plans, for the life of the connection.  A statement that was
   prepared while its table was empty would go on reading the whole table when it has grown. */
static const char settings[] =
    "select set_config(name, value, false)"
    "  from (values ('search_path', quote_ident($1)),"
    "               ('client_min_messages', 'error'),"
    "               ('plan_cache_mode', 'force_generic_plan'),"  // plan once, for all arguments
    "               ('enable_seqscan', 'off'),"  // however small the table is when we plan
    "               ('enable_hashjoin', 'off'),"  // these two read whole tables as well
    "               ('enable_mergejoin', 'off'),"
    "               ('jit', 'off')"  // compiling costs more than it saves here
    "       ) as setting (name, value)";

/* A statement of the house, which stands in no file. */
static void must(Db *db, PGresult *result, const char *what)
{
    if (!is_done(result)) die("%s: %s", what, first_line(PQerrorMessage(db->conn)));
    PQclear(result);
}

/* A message about a malformed URL can quote a part of the password, so it is not shown. */
static void check_url(const char *url)
{
    if (!url || !*url)
        die("DATABASE_URL is not set. Start this with make (make run), or set it "
            "first: "
            "eval \"$(make env)\"");
    PQconninfoOption *options = PQconninfoParse(url, NULL);
    bool fine = options != NULL;
    for (PQconninfoOption *o = options; fine && o->keyword; o++)
        if (o->val &&
            ((!strcmp(o->keyword, "host") && strchr(o->val, '@')) ||
             (!strcmp(o->keyword, "port") && o->val[strspn(o->val, "0123456789,")])))
            fine = false;
    PQconninfoFree(options);
    if (!fine)
        die("DATABASE_URL is not postgres://USER:PASSWORD@HOST:PORT/DATABASE "
            "(in a password write @ as %%40, / as %%2F and %% as %%25)");
}

/* libpq says a line for each address that it tried, and advice below: the last line that is
   no advice. */
static const char *why_not_connected(const char *message)
{
    char *rest, *why = "no reason given";
    char *text = copy_text(message, strlen(message));
    for (char *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
        if (*line != '\t' && strncmp(line, "DETAIL:", 7) && strncmp(line, "HINT:", 5))
            why = line;
    return why;
}

Db *connect_db(const char *schema)
{
    const char *url = getenv("DATABASE_URL");
    const char *keys[] = {"dbname", "application_name", "client_encoding", NULL};
    const char *values[] = {url, schema, "UTF8", NULL};
    check_url(url);
    read_crash_plan();
    Db *db = take(sizeof *db);
    db->conn = PQconnectdbParams(keys, values, true);
    if (PQstatus(db->conn) != CONNECTION_OK)
        die("cannot connect to Postgres: %s",
            why_not_connected(PQerrorMessage(db->conn)));
    must(db, PQexecParams(db->conn, settings, 1, NULL, &schema, NULL, NULL, 0),
         "settings");
    return db;
}

PGconn *connection(Db *db) { return db->conn; }

void close_db(Db *db)
{
    also_changed(db);
    PQfinish(db->conn);
}

/* PQfinish() would say goodbye to the server in the parent's name; leaving the socket open
   would keep the parent's session, and its locks, alive after the parent's death. */
void leave_db(Db *db) { close(PQsocket(db->conn)); }

/* ---- making the schema anew ---- */

/* Sent as it stands: Postgres finds the ends of statements better than we would. */
static void run_file(Db *db, const char *path)
{
    int done = 0;
    Statement *file = whole_file(read_sql_file(path));
    PQsendQuery(db->conn, file->sql);
    for (PGresult *result; (result = PQgetResult(db->conn)); PQclear(result), done++)
        if (!is_done(result) && PQresultStatus(result) != PGRES_EMPTY_QUERY)
            die_of(db, result, nth_statement(file, done), NULL);
}

/* All or nothing: with a mistake in schema.sql the old tables stay as they were. */
static void make_tables(Db *db, const char *schema)
{
    must(db, PQexec(db->conn, "begin"), "begin");
    run_file(db, FRESH);
    run_file(db, "schema.sql");
    if (PQtransactionStatus(db->conn) != PQTRANS_INTRANS)
        die("schema.sql: it ends the transaction in which the tables are made: "
            "leave out begin, commit and rollback");
    PGresult *result = PQexec(db->conn, "select current_schema()");
    if (!is_done(result) || strcmp(PQgetvalue(result, 0, 0), schema))
        die("schema.sql: it makes its tables elsewhere: leave search_path as it is, "
            "and the schema that there is");
    PQclear(result);
    must(db, PQexec(db->conn, "commit"), "schema.sql");
    made_anew = true;
}

/* ---- preparing ---- */

static char type_of(Oid type)
{
    enum { INT8 = 20, INT2 = 21, INT4 = 23, OID = 26, JSON = 114, JSONB = 3802 };
    if (type == INT8 || type == INT2 || type == INT4 || type == OID) return 'i';
    return type == JSON || type == JSONB ? 'j' : 't';
}

/* In lower case, so that SQL can say: execute claimtask('default'). */
static const char *lower_case(const char *text)
{
    char *copy = copy_text(text, strlen(text));
    for (char *c = copy; *c; c++) *c = (char)tolower((unsigned char)*c);
    return copy;
}

static void prepare(Db *db, const Prepared *p)
{
    PGresult *result = PQprepare(db->conn, p->name, p->statement->sql, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die_of(db, result, p->statement, NULL);
    PQclear(result);
    db->ready[p->number] = true;
}

static void describe(Db *db, Prepared *p)
{
    const Statement *s = p->statement;
    PGresult *result = PQdescribePrepared(db->conn, p->name);
    if (PQresultStatus(result) != PGRES_COMMAND_OK) die_of(db, result, s, NULL);
    for (int i = 0; i < s->parameters; i++)
        p->parameter_type[i] = type_of(PQparamtype(result, i));
    p->columns = PQnfields(result);
    p->column = take(sizeof *p->column * (size_t)p->columns);
    p->column_type = take((size_t)p->columns);
    for (int i = 0; i < p->columns; i++) {
        p->column[i] = copy_text(PQfname(result, i), strlen(PQfname(result, i)));
        p->column_type[i] = type_of(PQftype(result, i));
    }
    PQclear(result);
    if (!p->columns && strcmp(s->kind, "exec"))
        die_at(s, 0,
               format("a :%s returns rows, but this statement has none to return",
                      s->kind),
               "");
}

static void read_statements(void)
{
    Prepared **last = &prepared;
    for (Statement *s = named_statements(read_sql_file("queries.sql")); s;
         s = s->next) {
        Prepared *p = *last = take(sizeof *p);
        *p = (Prepared){.statement = s,
                        .name = lower_case(s->name),
                        .number = prepared_count++};
        last = &p->next;
    }
}

/* The first connection reads queries.sql and checks all of it.  Later ones, in forked
   children, prepare a statement when it is first used. */
static void load_statements(Db *db)
{
    bool first = !prepared;
    if (first) read_statements();
    db->ready = take((size_t)prepared_count);
    if (first)
        for (Prepared *p = prepared; p; p = p->next) {
            prepare(db, p);
            describe(db, p);
        }
    keep_memory();
}

void prepare_all(Db *db)
{
    for (Prepared *p = prepared; p; p = p->next)
        if (!db->ready[p->number]) prepare(db, p);
}

Db *open_db(const char *schema)
{
    Db *db = connect_db(schema);
    load_statements(db);
    return db;
}

Db *fresh_db(const char *schema)
{
    Db *db = connect_db(schema);
    make_tables(db, schema);
    load_statements(db);
    return db;
}

/* ---- running ---- */

/* A mistake in how C calls a statement: says both places. */
static _Noreturn void die_call(const char *here, const Statement *s, const char *what)
{
    die_at(s, 0, what, with("called at ", here));
}

static Prepared *find(const char *here, const char *name, const char *kind)
{
    Prepared *p = prepared;
    while (p && strcmp(p->statement->name, name)) p = p->next;
    if (!p) die("%s: there is no statement %s in queries.sql", here, name);
    if (strcmp(p->statement->kind, kind))
        die_call(here, p->statement,
                 format("it is :%s, and called as :%s", p->statement->kind, kind));
    return p;
}

static const char *type_name(char type)
{
    return type == 'i'   ? "an integer"
           : type == 'j' ? "json"
                         : "neither integer nor json";
}

static const char *constructor(char type)
{
    return type == 'i' ? "Int()" : type == 'j' ? "Json()" : "Text()";
}

/* Puts each argument where its name says. */
static void bind_args(const char *here, const Prepared *p, const Arg *args,
                      const char **values)
{
    const Statement *s = p->statement;
    bool bound[MOST_PARAMETERS] = {false};
    for (const Arg *arg = args; arg->name; arg++) {
        int i = 0;
        while (i < s->parameters && strcmp(s->parameter[i], arg->name)) i++;
        if (i == s->parameters)
            die_call(here, s, format("there is no @%s in it", arg->name));
        if (bound[i]) die_call(here, s, format("@%s is given twice", arg->name));
        if (arg->value && arg->type != p->parameter_type[i])
            die_call(here, s,
                     format("Postgres takes @%s for %s: use %s, or cast it there",
                            arg->name, type_name(p->parameter_type[i]),
                            constructor(p->parameter_type[i])));
        bound[i] = true;
        values[i] = arg->value;
    }
    for (int i = 0; i < s->parameters; i++)
        if (!bound[i]) die_call(here, s, format("@%s is not given", s->parameter[i]));
}

static Call make_call(const char *here, Db *db, const Prepared *p, const Arg *args)
{
    Call call = {.what = p, .here = here};
    bind_args(here, p, args, call.value);
    if (!db->ready[p->number]) prepare(db, p);
    call.how = crash_in && --crash_in == 0 ? crash_how : 0;
    if (call.how == 'b') crash("before", p->statement->name);
    if (call.how == 'f') freeze(p->statement->name);
    return call;
}

static PGresult *check_result(Db *db, const Call *call, PGresult *result)
{
    const Statement *s = call->what->statement;
    if (call->how == 'a') crash("after", s->name);
    if (call->how == 'l') {
        say("CRASH_AT: the answer of %s is lost", s->name);
        shutdown(PQsocket(db->conn), SHUT_RDWR);
        PQclear(result);
        result = PQexec(db->conn, "");
    }
    if (!is_done(result)) die_of(db, result, s, call->here);
    return result;
}

static void send_call(Db *db, const Call *call)
{
    PQsendQueryPrepared(db->conn, call->what->name, call->what->statement->parameters,
                        call->value, NULL, NULL, 0);
}

/* Up to the NULL that ends the results of a statement. */
static PGresult *get_result(Db *db)
{
    PGresult *result = PQgetResult(db->conn);
    PQclear(PQgetResult(db->conn));
    return result;
}

/* Both are sent before the first is answered.  Postgres commits where we say that it is to
   synchronize, so they are one transaction; each looks when it begins. */
static PGresult *run_both(Db *db, const Call *first, const Call *second)
{
    PQenterPipelineMode(db->conn);
    send_call(db, first);
    send_call(db, second);
    PQpipelineSync(db->conn);
    PGresult *of_first = get_result(db), *of_second = get_result(db);
    PGresult *commit = PQgetResult(db->conn);
    PQexitPipelineMode(db->conn);
    of_first = check_result(db, first, of_first);
    of_second = check_result(db, second, of_second);
    if (PQresultStatus(commit) != PGRES_PIPELINE_SYNC)
        die_of(db, commit, second->what->statement, second->here);
    db->also_changed = atoi(PQcmdTuples(of_first));
    PQclear(of_first);
    PQclear(commit);
    return of_second;
}

static PGresult *run_alone(Db *db, const Call *call)
{
    PGresult *result =
        PQexecPrepared(db->conn, call->what->name, call->what->statement->parameters,
                       call->value, NULL, NULL, 0);
    return check_result(db, call, result);
}

static PGresult *run(const char *here, Db *db, const Prepared *p, const Arg *args)
{
    Call call = make_call(here, db, p, args), also = db->also;
    db->also.what = NULL;
    return also.what ? run_both(db, &also, &call) : run_alone(db, &call);
}

static Row *copy_row(const Prepared *p, const PGresult *result, int i)
{
    Row *row = take(sizeof *row + sizeof *row->value * (size_t)p->columns);
    row->from = p;
    for (int c = 0; c < p->columns; c++)
        if (!PQgetisnull(result, i, c))
            row->value[c] =
                copy_text(PQgetvalue(result, i, c), (size_t)PQgetlength(result, i, c));
    return row;
}

static Row *run_rows(const char *here, Db *db, const char *name, const char *kind,
                     const Arg *args)
{
    const Prepared *p = find(here, name, kind);
    PGresult *result = run(here, db, p, args);
    if (!strcmp(kind, "one") && PQntuples(result) > 1)
        die_call(here, p->statement,
                 format("a :one, and it returned %d rows", PQntuples(result)));
    Row *first = NULL, **last = &first;
    for (int i = 0; i < PQntuples(result); i++) {
        *last = copy_row(p, result, i);
        last = &(*last)->next;
    }
    PQclear(result);
    return first;
}

Row *run_one(const char *here, Db *db, const char *name, const Arg *args)
{
    return run_rows(here, db, name, "one", args);
}

Row *run_many(const char *here, Db *db, const char *name, const Arg *args)
{
    return run_rows(here, db, name, "many", args);
}

int run_exec(const char *here, Db *db, const char *name, const Arg *args)
{
    PGresult *result = run(here, db, find(here, name, "exec"), args);
    int changed = atoi(PQcmdTuples(result));
    PQclear(result);
    return changed;
}

void run_also(const char *here, Db *db, const char *name, const Arg *args)
{
    also_changed(db);
    db->also = make_call(here, db, find(here, name, "exec"), args);
}

int also_changed(Db *db)
{
    Call also = db->also;
    if (!also.what) return db->also_changed;
    db->also.what = NULL;
    PGresult *result = run_alone(db, &also);
    db->also_changed = atoi(PQcmdTuples(result));
    PQclear(result);
    return db->also_changed;
}

/* ---- arguments and columns ---- */

Arg Text(const char *name, const char *value) { return (Arg){'t', name, value}; }
Arg Json(const char *name, const char *value) { return (Arg){'j', name, value}; }
Arg Int(const char *name, int64_t value)
{
    return (Arg){'i', name, format("%" PRId64, value)};
}

const char *read_text(const char *here, const Row *row, const char *column, char type)
{
    const Prepared *p = row->from;
    int i = 0;
    while (i < p->columns && strcmp(p->column[i], column)) i++;
    if (i == p->columns)
        die_call(here, p->statement, format("it returns no column \"%s\"", column));
    if (type != 't' && p->column_type[i] != type)
        die_call(here, p->statement,
                 format("column \"%s\" is not %s", column, type_name(type)));
    return row->value[i];
}

int64_t read_int(const char *here, const Row *row, const char *column)
{
    const char *text = read_text(here, row, column, 'i');
    if (!text)
        die_call(here, row->from->statement, format("column \"%s\" is null", column));
    return strtoll(text, NULL, 10);
}

/* ---- a table of rows ---- */

static int characters(const char *text)
{
    int count = 0;
    for (; *text; text++) count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

/* Line ends and escape sequences from the database do not reach the terminal. */
static const char *one_line(const char *text)
{
    char *copy = copy_text(text, strlen(text));
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7F) *c = ' ';
    return copy;
}

static void print_line(const Prepared *p, const char *const *value, const int *width)
{
    char *line = "    ";
    for (int i = 0; i < p->columns; i++) {
        const char *text = value[i] ? one_line(value[i]) : "";
        const char *pad = format("%*s", width[i] - characters(text), "");
        bool right = p->column_type[i] == 'i';
        line = format("%s%s%s%s  ", line, right ? pad : "", text, right ? "" : pad);
    }
    int length = (int)strlen(line);
    while (length && line[length - 1] == ' ') length--;
    printf("%.*s\n", length, line);
}

void print_rows(const Row *rows)
{
    wipe_progress();
    if (!rows) {
        printf("    (no rows)\n");
        return;
    }
    const Prepared *p = rows->from;
    int *width = take(sizeof *width * (size_t)p->columns);
    for (int i = 0; i < p->columns; i++) {
        width[i] = characters(p->column[i]);
        for (const Row *row = rows; row; row = row->next)
            if (row->value[i] && characters(row->value[i]) > width[i])
                width[i] = characters(row->value[i]);
    }
    print_line(p, p->column, width);
    for (const Row *row = rows; row; row = row->next) print_line(p, row->value, width);
}

void print_row(const Row *row)
{
    wipe_progress();
    const Prepared *p = row->from;
    int width = 0;
    for (int i = 0; i < p->columns; i++)
        if (row->value[i] && characters(p->column[i]) > width)
            width = characters(p->column[i]);
    for (int i = 0; i < p->columns; i++)
        if (row->value[i])
            printf("    %-*s  %s\n", width, p->column[i], one_line(row->value[i]));
}
