/* Lesson 01: the tools, and one clause.

   What this program does: it connects to Postgres, puts JSON into a table and gets it
   back, rolls a transaction back, and then does what everything after this rests on:
   two processes ask one table for something to do.  With "for update" the second waits
   for the first. With "for update skip locked" it takes the next row.  Then one of them
   is killed.

   The idea:       a row lock decides who gets what, and Postgres keeps it for us.
   The invariant:  a task is never taken by two processes at once.
   Still wrong:    a lock lives only as long as its connection.  When a process dies, so
                   does every trace that it had begun: a lock is not a claim. */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "db.h"
#include "json.h"
#include "memory.h"

static Db *db;  // the connection of this process; each process opens its own
static const char *my_name;  // in a child: "left" or "right"
static int wire;             // in a child: its line to the demo

/* ---- processes: the demo forks them, and they talk over a pair of sockets ---- */

typedef struct {
    const char *name;
    pid_t pid;
    int wire;
} Process;

static Process left = {.name = "left"}, right = {.name = "right"};

static void start(Process *p, void (*work)(const char *), const char *argument)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) die("socketpair failed");
    fflush(stdout);  // a fork copies what is not written yet: it would come twice
    p->pid = fork();
    if (p->pid < 0) die("fork failed");
    if (p->pid == 0) {
        close(ends[0]);
        if (left.wire) close(left.wire);  // right was given a copy of this, too
        leave_db(db);
        my_name = p->name;
        wire = ends[1];
        speak_as("%s", my_name);
        db = open_db(SCHEMA);
        work(argument);
        exit(0);
    }
    close(ends[1]);
    p->wire = ends[0];
}

static void report(int64_t id)
{
    if (send(wire, &id, sizeof id, MSG_NOSIGNAL) < 0) die("the demo is gone");
}

/* True if the process reports something within so many milliseconds. */
static bool reports_within(Process p, int ms)
{
    return poll(&(struct pollfd){.fd = p.wire, .events = POLLIN}, 1, ms) > 0;
}

static int64_t hear(Process p)
{
    int64_t id;
    if (read(p.wire, &id, sizeof id) != sizeof id)
        die("a process is gone that should have reported");
    return id;
}

static void order(Process p)
{
    if (send(p.wire, "!", 1, MSG_NOSIGNAL) < 0)
        die("a process is gone that should have taken an order");
}

/* False: the demo is gone. */
static bool await_order(void) { return read(wire, &(char){0}, 1) == 1; }

static void wait_for_end(Process *p)
{
    close(p->wire);
    p->wire = 0;
    int status;
    if (waitpid(p->pid, &status, 0) < 0) die("waitpid failed");
    p->pid = 0;
    if (status) die("%s did not end well", p->name);
}

/* Until the process has reported (false), or Postgres says that it waits for a lock
   (true). */
static bool has_to_wait(Process p)
{
    while (!reports_within(p, 10))
        if (get_int(one(db, "CountWaiting"), "n") > 0) return true;
    return false;
}

/* ---- what the processes do ---- */

static int64_t take_task(const char *statement)
{
    exec(db, "Begin");
    say("asks for a task");
    double asked = elapsed_ms();
    Row *task = one(db, statement);
    int64_t id = task ? get_int(task, "id") : 0;
    if (id) say("got task %lld after %.1f ms", (long long)id, elapsed_ms() - asked);
    return id;
}

/* The transaction, and with it the lock, lasts from taking the task to finishing it. */
static void take_and_finish(const char *statement)
{
    int64_t id = take_task(statement);
    report(id);
    if (!await_order()) die("the demo is gone");
    poll(NULL, 0, strcmp(my_name, "left") ? 100 : 300);  // this is the work
    exec(db, "FinishTask", Int("id", id), Text("worker", my_name));
    say("finished task %lld, commits", (long long)id);
    exec(db, "Commit");
}

/* Takes a task and leaves a helper behind, as a program does that starts another one.
   The helper has a copy of everything that is open here, the connection's socket
   included. */
static void take_and_fork(bool helper_leaves_db)
{
    int64_t id = take_task("TakeTask");
    if (fork() == 0) {
        if (helper_leaves_db) leave_db(db);
        await_order();
        _exit(0);  // not exit(): what left has in its buffers is left's to write
    }
    report(id);
    await_order();
}

static void take_and_fork_well(const char *unused)
{
    (void)unused, take_and_fork(true);
}
static void take_and_fork_badly(const char *unused)
{
    (void)unused, take_and_fork(false);
}

/* ---- the demo ---- */

static void three_tasks(void)
{
    exec(db, "EmptyTable");
    for (int i = 1; i <= 3; i++)
        one(db, "AddTask", Text("name", "greet"),
            Json("input", format("{\"to\": %d}", i)));
}

/* The one call of this guide that is spelled out.  one(), many() and exec() do the
   same. */
static void plain_libpq(void)
{
    const char *values[] = {"2", "40"};  // as text; Postgres infers their types
    PGresult *result = PQexecParams(connection(db), "select $1::int + $2::int as sum",
                                    2, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        die("%s", PQerrorMessage(connection(db)));
    say("plain libpq: 2 + 40 is %s, says Postgres %s", PQgetvalue(result, 0, 0),
        PQparameterStatus(connection(db), "server_version"));
    PQclear(result);
}

static void show_json(void)
{
    char *why;
    cJSON *letter = cJSON_CreateObject();
    cJSON_AddStringToObject(letter, "to", "Zoë");
    cJSON_AddNumberToObject(letter, "amount", 0.1 + 0.2);
    char *sent = encode(letter, &why);
    Row *row = one(db, "AddTask", Text("name", "greet"), Json("input", sent));
    const char *stored = get_json(row, "input");
    cJSON *back = decode(stored, &why);
    say("encode() wrote    %s", sent);
    say("jsonb returned    %s", stored);
    expect(back && !strcmp(encode(back, &why), sent),
           "decode() gets back what encode() wrote");

    const char *big = "{\"id\": 9007199254740993}";
    expect(!decode(big, &why), "what would be changed on the way is refused");
    say("decode() refused  %s", big);
    say("          because %s", why);
}

static void show_transaction(void)
{
    int64_t before = get_int(one(db, "CountTasks"), "n");
    exec(db, "Begin");
    one(db, "AddTask", Text("name", "greet"), Json("input", "{}"));
    int64_t inside = get_int(one(db, "CountTasks"), "n");
    exec(db, "Rollback");
    int64_t after = get_int(one(db, "CountTasks"), "n");
    say("tasks before: %lld, inside: %lld, after rollback: %lld", (long long)before,
        (long long)inside, (long long)after);
    expect(inside == before + 1 && after == before, "a rollback leaves nothing behind");
}

static void show_for_update(void)
{
    three_tasks();
    start(&left, take_and_finish, "TakeTask");
    int64_t first = hear(left);
    start(&right, take_and_finish, "TakeTask");
    expect(has_to_wait(right), "with for update, right has to wait for left");
    say("right waits for left, says Postgres");
    order(left);
    order(right);
    wait_for_end(&left);
    int64_t second = hear(right);
    wait_for_end(&right);
    print_rows(many(db, "ListTasks"));
    expect(first == 1 && second == 2, "left got task 1, and right task 2");
}

static void show_skip_locked(void)
{
    three_tasks();
    start(&left, take_and_finish, "TakeTaskSkipLocked");
    int64_t first = hear(left);
    start(&right, take_and_finish, "TakeTaskSkipLocked");
    expect(!has_to_wait(right), "with skip locked, right does not wait for left");
    int64_t second = hear(right);
    order(left);
    order(right);
    wait_for_end(&right);
    wait_for_end(&left);
    print_rows(many(db, "ListTasks"));
    expect(first == 1 && second == 2, "left got task 1, and right task 2");
}

/* Left dies with a task in its hands, and a helper of left lives on. */
static void show_kill(bool helper_leaves_db)
{
    enum { LONG_ENOUGH_TO_SEE = 300, FOR_EVER = 5000 };
    three_tasks();
    start(&left, helper_leaves_db ? take_and_fork_well : take_and_fork_badly, NULL);
    hear(left);
    kill(left.pid, SIGKILL);
    waitpid(left.pid, NULL, 0);  // its wire stays open: the helper holds the other end
    left.pid = 0;
    say("left is dead (kill -9)");
    start(&right, take_and_finish, "TakeTask");
    if (!helper_leaves_db) {
        expect(!reports_within(right, LONG_ENOUGH_TO_SEE),
               "a copy of the socket keeps the lock");
        say("right waits for a process that is no more; now its helper ends");
        order(left);
    }
    expect(reports_within(right, FOR_EVER), "the lock of a dead process is gone");
    expect(hear(right) == 1, "right got task 1, which left had begun");
    order(right);
    wait_for_end(&right);
    close(left.wire);
    left.wire = 0;
}

static void demo(void)
{
    db = fresh_db(SCHEMA);
    headline("The tools: libpq, cJSON, a transaction");
    plain_libpq();
    show_json();
    show_transaction();

    headline("for update: they queue up");
    show_for_update();

    headline("for update skip locked: they pass each other");
    show_skip_locked();

    headline("kill -9: the lock is gone at once, and so is every trace of left");
    show_kill(true);

    headline("kill -9, but a helper has a copy of the socket: the lock lives on");
    show_kill(false);

    headline(
        "All of it came true.  A lock is not a claim: lesson 02 writes claims down.");
    close_db(db);
}

static void show(void)
{
    db = open_db(SCHEMA);
    print_rows(many(db, "ListTasks"));
    close_db(db);
}

/* ---- the program ---- */

int main(int argc, char **argv)
{
    static const Command commands[] = {
        {"", "", demo, "the demo"},
        {"show", "", show, "the rows of table task"},
    };
    return run_command(commands, sizeof commands / sizeof *commands, argc, argv);
}
