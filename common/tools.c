/* tools: what the Makefiles need beside a lesson's program.

   reset SCHEMA       makes the schema anew from schema.sql
   psql SCHEMA        psql in that schema
   check SCHEMA       runs check.sql: each query there returns the rows that break a rule, and
                      the comment above it says which
   race SCHEMA FILE   plays a race/NAME.race on two real sessions, and holds it to what it says:

       # The head says what it shows.
       insert into task default values;         <- before the columns: set-up
       left                     | right         <- this bar divides every line below
       begin;                   |
       select ... for update;   |
       -- 1                     |               <- that must have come back
                                | update ...
                                | where id = 1; <- a statement ends at its ';'
                                | -- waits      <- it must now wait for the other session
       commit;                  |
                                | -- UPDATE 1
       # The moral.

   Top to bottom is the order in time; on one line the left comes first.  Both sessions have
   the lesson's statements prepared under their names, so "execute claimtask('default');"
   runs the very text of queries.sql.  Postgres itself says whether a session waits, so no
   time limit is guessed anywhere.  The lesson's schema is made anew first. */

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "db.h"
#include "memory.h"

typedef struct {
    const char *name;
    PGconn *conn;
    char *sql;          // what was read of a statement so far
    bool busy;          // sent, and no answer yet
    char *result;       // of the last statement
    bool unseen_error;  // it is an error, and no "--" has expected it
} Session;

static PGconn *control;
static Session sides[2] = {{.name = "left"}, {.name = "right"}};
static int checks, mistakes;

/* "1, ada; 2, bob", "no row", "UPDATE 1" or "error: ..." */
static char *describe(const PGresult *result)
{
    enum { MOST_ROWS = 100 };
    ExecStatusType status = PQresultStatus(result);
    int rows = PQntuples(result), columns = PQnfields(result);
    if (status == PGRES_COMMAND_OK) return first_line(PQcmdStatus((PGresult *)result));
    if (status != PGRES_TUPLES_OK)
        return format("error: %s", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    char *text = rows ? "" : "no row";
    for (int i = 0; i < (rows < MOST_ROWS ? rows : MOST_ROWS) * columns; i++) {
        int row = i / columns, column = i % columns;
        const char *gap = column ? ", " : row ? "; " : "";
        text =
            format("%s%s%s", text, gap,
                   PQgetisnull(result, row, column) ? "null"
                                                    : PQgetvalue(result, row, column));
    }
    return rows > MOST_ROWS ? format("%s; and %d more", text, rows - MOST_ROWS) : text;
}

static void take_answer(Session *s)
{
    for (PGresult *r; (r = PQgetResult(s->conn)); PQclear(r)) {
        if (PQresultStatus(r) == PGRES_COPY_IN)
            die("%s: copy is not for races", s->name);
        s->result = describe(r);
    }
    s->busy = false;
    s->unseen_error = !strncmp(s->result, "error: ", 7);
}

/* Does the one session wait for a lock that the other has? */
static bool is_blocked(const Session *s)
{
    char *me = format("%d", PQbackendPID(s->conn));
    char *other = format("%d", PQbackendPID(sides[s == sides].conn));
    PGresult *result =
        PQexecParams(control, "select $2::int = any(pg_blocking_pids($1::int))", 2,
                     NULL, (const char *[]){me, other}, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        die("%s", first_line(PQerrorMessage(control)));
    bool blocked = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return blocked;
}

/* Until the session has its answer, or waits for the other one: then nothing but a line
   further down can move it. */
static void settle(Session *s)
{
    while (s->busy) {
        struct pollfd fd = {.fd = PQsocket(s->conn), .events = POLLIN};
        poll(&fd, 1, 5);
        if (!PQconsumeInput(s->conn))
            die("%s: %s", s->name, first_line(PQerrorMessage(s->conn)));
        if (!PQisBusy(s->conn)) take_answer(s);
        else if (is_blocked(s)) return;
    }
}

static void expect_no_error(const Session *s)
{
    if (s->unseen_error) die("%s: nothing here expects this %s", s->name, s->result);
}

static void send_statement(Session *s, int line)
{
    settle(s);
    expect_no_error(s);
    if (s->busy)
        die("line %d: %s cannot go on, it still waits for the other side", line,
            s->name);
    if (!PQsendQuery(s->conn, s->sql))
        die("%s: %s", s->name, first_line(PQerrorMessage(s->conn)));
    s->sql = "";
    s->busy = true;
    settle(s);
    for (int i = 0; i < 2; i++) settle(&sides[i]);
}

/* A '*' in what is expected stands for any text. */
static bool matches(const char *actual, const char *expected)
{
    const char *star = NULL, *from = NULL;
    while (*actual) {
        if (*expected == '*') star = ++expected, from = actual;
        else if (*expected == *actual) expected++, actual++;
        else if (star) expected = star, actual = ++from;
        else return false;
    }
    while (*expected == '*') expected++;
    return !*expected;
}

/* What the last statement of this side has brought by now, and whether that is right. */
static char *check(Session *s, const char *expected)
{
    if (*s->sql)
        die("%s has a statement without its ';' before \"-- %s\"", s->name, expected);
    settle(s);
    checks++;
    s->unseen_error = false;
    const char *actual = s->busy ? "waits" : s->result;
    if (!strcmp(actual, expected)) return format("-- %s", actual);
    if (matches(actual, expected)) return format("-- %.80s", actual);
    mistakes++;
    return format("-- %s   <== NOT \"%s\"", actual, expected);
}

/* Half a line.  Returns what to print for it. */
static const char *play(Session *s, char *cell, int line)
{
    size_t length = strlen(cell), indent = strspn(cell, " ");
    while (length && strchr(" \t\r", cell[length - 1])) cell[--length] = 0;
    if (!strncmp(cell + indent, "--", 2)) {
        char *expected = cell + indent + 2;
        return format("%*s%s", (int)indent, "",
                      check(s, expected + strspn(expected, " ")));
    }
    if (!length) return cell;
    s->sql = format("%s%s\n", s->sql, cell);
    if (cell[length - 1] == ';') send_statement(s, line);
    return cell;
}

static int characters(const char *from, const char *to)
{
    int count = 0;
    for (; from < to; from++) count += ((unsigned char)*from & 0xC0) != 0x80;
    return count;
}

/* A line with no bar where the others have theirs is all the left's: a long answer. */
static void play_line(char *text, int bar, int number)
{
    char *divider = strchr(text, '|');
    while (divider && characters(text, divider) != bar)
        divider = strchr(divider + 1, '|');
    if (divider) *divider = 0;
    const char *left = play(&sides[0], text, number);
    printf("%9.1f ms  %-*s", elapsed_ms(), divider ? bar : 0, left);
    printf(divider ? "|%s\n" : "\n",
           divider ? play(&sides[1], divider + 1, number) : "");
}

static void set_up(const char *sql)
{
    PGresult *result = PQexec(control, sql);
    if (*PQerrorMessage(control))
        die("set-up: %s", first_line(PQerrorMessage(control)));
    PQclear(result);
}

static void play_race(void)
{
    Db *db = fresh_db(word(0));
    control = connection(db);
    for (int i = 0; i < 2; i++) {
        Db *side = open_db(word(0));
        prepare_all(side);
        sides[i].conn = connection(side);
        sides[i].sql = "";
        sides[i].result = "nothing yet";
    }
    FILE *stream = fopen(word(1), "r");
    if (!stream) die("there is no %s", word(1));
    char *text = NULL, *setup = "";
    size_t size = 0;
    int number = 0, bar = 0;
    while (getline(&text, &size, stream) >= 0) {
        char *line = first_line(text), *divider = strchr(line, '|');
        number++;
        if (bar && !*line) printf("\n");
        else if (*line == '#') printf("%s\n", line + (line[1] ? 2 : 1));
        else if (bar) play_line(line, bar, number);
        else if (!strncmp(line, "left ", 5) && divider) {
            set_up(setup);
            bar = (int)(divider - line);
            printf("\n%12s  %s\n", "", line);
        } else setup = format("%s%s\n", setup, line);
    }
    free(text);
    fclose(stream);
    for (int i = 0; i < 2; i++) {
        settle(&sides[i]);
        expect_no_error(&sides[i]);
        if (*sides[i].sql)
            die("%s has a statement without its ';' at the end", sides[i].name);
        if (sides[i].busy) die("%s still waits at the end", sides[i].name);
        PQfinish(sides[i].conn);
    }
    close_db(db);
    if (!bar) die("%s has no line \"left | right\"", word(1));
    if (!checks) die("%s expects nothing: say what must happen, with --", word(1));
    if (mistakes)
        die("it did not go as %s says: lines that differ: %d", word(1), mistakes);
}

static void reset(void)
{
    close_db(fresh_db(word(0)));
    printf("%s is made anew, from schema.sql\n", word(0));
}

/* The connection goes by environment: arguments can be read in the list of processes. */
static void start_psql(void)
{
    close_db(connect_db(word(0)));  // says what is wrong, if something is
    PQconninfoOption *options = PQconninfoParse(getenv("DATABASE_URL"), NULL);
    for (PQconninfoOption *o = options; o->keyword; o++)
        if (o->val && o->envvar) setenv(o->envvar, o->val, true);
    setenv("PGOPTIONS",
           format("%s -c search_path=%s",
                  getenv("PGOPTIONS") ? getenv("PGOPTIONS") : "", word(0)),
           true);
    execlp("psql", "psql", NULL);
    die("there is no psql: make doctor says how to get it");
}

/* A rule is a paragraph: a comment, and the query that returns what breaks it. */
static bool rule_holds(Db *db, const char *rule)
{
    PGresult *result = PQexec(connection(db), rule);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        die("check.sql: %s\n%s", PQresultErrorMessage(result), rule);
    bool holds = PQntuples(result) == 0;
    if (!holds) {
        printf("broken: ");
        for (const char *line = rule; !strncmp(line, "--", 2);
             line += strcspn(line, "\n") + 1)
            printf("%s\n        ", first_line(line + 3));
        printf("%s\n", describe(result));
    }
    PQclear(result);
    return holds;
}

static void check_rules(void)
{
    int rules = 0, broken = 0;
    Db *db = connect_db(word(0));
    const char *text = read_sql_file("check.sql")->text, *end;
    for (; *text; text = end + strspn(end, "\n")) {
        end = strstr(text, "\n\n");
        if (!end) end = text + strlen(text);
        const char *rule = copy_text(text, (size_t)(end - text));
        if (!strstr(rule, "\nselect")) continue;
        rules++;
        broken += !rule_holds(db, rule);
    }
    close_db(db);
    if (broken) die("%d of %d rules do not hold", broken, rules);
    printf("healthy: %d rules hold\n", rules);
}

int main(int argc, char **argv)
{
    static const Command commands[] = {
        {"reset", "SCHEMA", reset, "make reset"},
        {"psql", "SCHEMA", start_psql, "make psql"},
        {"check", "SCHEMA", check_rules, "make check"},
        {"race", "SCHEMA FILE", play_race, "make race R=name"},
    };
    return run_command(commands, 4, argc, argv);
}
