/* A lesson that teaches nothing: common/ used rightly and wrongly, for common.bats. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "db.h"
#include "json.h"
#include "memory.h"

static Db *db;

static void add(const char *label, const char *input)
{
    one(db, "AddThing", Text("label", label), Json("input", input));
}

static void rightly(void)
{
    db = fresh_db(SCHEMA);
    add("ä", "{\"b\":  1}");
    add("b", NULL);
    Row *row = one(db, "CountThings", Text("label", "b"));
    say("%d things, %d same", (int)get_int(row, "n"), (int)get_int(row, "same"));
    row = one(db, "Operators", Int("größe", 7), Text("text", "it's; @x"),
              Int("small", 2));
    say("%s|%s|%s|%s", get_text(row, "a @name"), get_text(row, "dollars"),
        get_text(row, "tagged"), get_text(row, "escaped"));
    say("%s %s %s %s %s", get_text(row, "contains"), get_text(row, "within"),
        get_text(row, "abs"), get_text(row, "umlaut"), get_text(row, "joined"));
    print_rows(many(db, "ListThings"));
    Row *list = many(db, "ListThings");
    say("input is \"%s\", then %s", get_json(list, "input"),
        get_json(list->next, "input") ? "not null" : "null");
    say("changed %d", exec(db, "ChangeThings", Text("label", "new")));
    close_db(db);
}

/* Each is a mistake in C, or at run time, that must say where. */
static void wrongly(void)
{
    db = fresh_db(SCHEMA);
    int mistake = atoi(word(0));
    Row *row = one(db, "CountThings", Text("label", "x"));
    if (mistake == 1) one(db, "NoSuch");
    if (mistake == 2) many(db, "CountThings", Text("label", "x"));
    if (mistake == 3) one(db, "CountThings");
    if (mistake == 4) one(db, "CountThings", Text("label", "x"), Text("lable", "x"));
    if (mistake == 5) one(db, "CountThings", Text("label", "x"), Text("label", "x"));
    if (mistake == 6) one(db, "CountThings", Int("label", 1));
    if (mistake == 7) one(db, "AddThing", Text("label", "x"), Text("input", "{}"));
    if (mistake == 8) get_text(row, "m");
    if (mistake == 9)
        get_int(one(db, "AddThing", Text("label", "x"), Json("input", NULL)), "label");
    if (mistake == 10) get_json(row, "n");
    if (mistake == 11) one(db, "TwoRows");
    if (mistake == 12) add("much too long", NULL);
    if (mistake == 13) add("x", "{no json");
    if (mistake == 14) die("%s", get_text(row, "n") ? "who: what" : "");
    if (mistake == 15) {
        kill(getppid(), 0);
        PQclear(
            PQexec(connection(db), "select pg_terminate_backend(pg_backend_pid())"));
        add("x", NULL);
    }
}

/* Five statements, under CRASH_AT. */
static void crash_here(void)
{
    db = fresh_db(SCHEMA);
    arm_crash(option("--who") ? option("--who") : "");
    for (int i = 1; i <= 5; i++) {
        add(format("%d", i), NULL);
        say("added %d", i);
    }
    close_db(db);
}

/* Two tasks' worth of memory is held, not a hundred thousand's, which would be 6 GB. */
static void forget(void)
{
    char *why, *kept = format("kept");
    keep_memory();
    char *older = "";
    for (int i = 0; i < 100000; i++) {
        char *text = format("{\"i\":%d,\"text\":\"%0*d\"}", i, i % 500 + 1, 0);
        if (!encode(decode(text, &why), &why)) die("%s", why);
        if (i && atoi(older) != i - 1) die("the task before is forgotten too early");
        older = format("%d", i);
        forget_memory();
    }
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %d", &(int){0}) == 1 && atoi(line + 6) > 1000000)
            die("too much: %s", line);
    if (status) fclose(status);
    say("%s", kept);
}

static void options(void)
{
    say("%s %s %s %d", word(0), word(1) ? word(1) : "-",
        option("--queue") ? option("--queue") : "-",
        (int)option_number("--priority", 3, -5, 5));
    say("%d", env_ms("PROBE_MS", 40));
}

int main(int argc, char **argv)
{
    static const Command commands[] = {
        {"rightly", "", rightly, "what must work"},
        {"wrongly", "N", wrongly, "what must not"},
        {"crash", "[--who W]", crash_here, "crash points"},
        {"forget", "", forget, "memory"},
        {"options", "NAME [JSON] [--queue Q] [--priority N]", options,
         "the command line"},
    };
    return run_command(commands, 5, argc, argv);
}
