/* Lesson 02: a simple task queue.

   What this program can do that the last could not: it keeps tasks in a table, takes
   them out one by one, calls the function that each names, and writes down what came of
   it.  Tasks are enqueued in the caller's own transaction, so a purchase and its
   task exist both or neither.

   The idea:       a claim is written into the row and committed; the lock is needed
                   only for the moment in which that happens.
   The invariant:  a task is claimed at most once.
   Still wrong:    a task whose process is killed stays 'running' for ever (lesson 04),
                   and nothing limits how many processes there are (lesson 03). */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "db.h"
#include "json.h"
#include "memory.h"

static Db *db;  // the connection of this process; each process opens its own
static const char *queue = "default";
static int poll_ms;
static bool quiet;

/* ---- a run: what a task's function sees of its task ---- */

typedef struct {
    int64_t id;
    const char *name;
    const char *error;  // why it failed
} Run;

/* NULL means failed, with the reason in run->error: return fail(run, "no such
   card"). */
typedef cJSON *Function(Run *run, const cJSON *input);

static void *fail(Run *run, const char *how, ...) __attribute__((format(printf, 2, 3)));
static void *fail(Run *run, const char *how, ...)
{
    va_list list;
    va_start(list, how);
    run->error = vformat(how, list);
    va_end(list);
    return NULL;
}

static Function *find_function(const char *name);
static const char *function_names(void);

/* ---- one task, from its claim to its end ---- */

static const char *worker_name(void)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    return format("%s:%d", host, (int)getpid());
}

static Row *claim_task(void)
{
    return one(db, "ClaimTask", Text("queue", queue), Text("worker", worker_name()));
}

/* Whatever goes wrong from here on ends up in the task's row, and in no other place. */
static const char *call_function(Run *run, const char *stored)
{
    char *why;
    Function *function = find_function(run->name);
    if (!function) return fail(run, "this worker has no function \"%s\"", run->name);
    cJSON *input = decode(stored, &why);
    if (!input) return fail(run, "its input is no good: %s", why);
    cJSON *output = function(run, input);
    if (!output) return run->error ? NULL : fail(run, "it gave no reason");
    char *text = encode(output, &why);
    return text ? text : fail(run, "its output is no good: %s", why);
}

static void run_task(const Row *task)
{
    Run run = {.id = get_int(task, "id"), .name = get_text(task, "name")};
    const char *output = call_function(&run, get_json(task, "input"));
    if (output) exec(db, "CompleteTask", Int("id", run.id), Json("output", output));
    else exec(db, "FailTask", Int("id", run.id), Text("error", run.error));
    if (!quiet)
        say("task %lld %s", (long long)run.id, output ? "completed" : run.error);
}

/* ---- the worker: looks for tasks, and forks a process for each ---- */

static void start_process(const Row *task)
{
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    if (pid > 0) return;
    leave_db(db);
    speak_as("process %d", (int)getpid());
    db = open_db(SCHEMA);
    run_task(task);
    close_db(db);
    exit(0);
}

static pid_t demo_pid;  // a worker that the demo has started ends with it

/* Without this the dead would stay in the table of processes.  Returns how many there
   were. */
static int bury_the_dead(void)
{
    int status, dead = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0; dead++)
        if (WIFSIGNALED(status))
            say("process %d died of signal %d", (int)pid, WTERMSIG(status));
        else if (status && demo_pid) exit(1);  // it has said why
        else if (status && !quiet)
            say("process %d ended with status %d", (int)pid, WEXITSTATUS(status));
    return dead;
}

static void work(void)
{
    while (!demo_pid || getppid() == demo_pid) {
        forget_memory();
        bury_the_dead();
        Row *task = claim_task();
        if (task) start_process(task);
        else poll(NULL, 0, poll_ms);
    }
}

/* ---- commands ---- */

static void read_options(void)
{
    poll_ms = env_ms("POLL_MS", 100);
    if (option("--queue")) queue = option("--queue");
}

static void worker(void)
{
    read_options();
    db = open_db(SCHEMA);
    say("looks for tasks in queue \"%s\" every %d ms; Ctrl-C ends it", queue, poll_ms);
    work();
}

/* One process, no forks, until nothing is left to do: for tests and debuggers. */
static void drain(void)
{
    Row *task;
    read_options();
    db = open_db(SCHEMA);
    arm_crash("");
    while ((task = claim_task())) {
        run_task(task);
        forget_memory();
    }
    close_db(db);
}

/* The input as encode() writes it, or the end of the program. */
static const char *check_input(const char *text, const char *where)
{
    char *why, *canonical = NULL;
    cJSON *input = decode(text, &why);
    if (input) canonical = encode(input, &why);
    if (!canonical) die_usage("%s: %s; nothing was enqueued", where, why);
    return canonical;
}

static const char *enqueue(const char *name, const char *input)
{
    Row *task = one(db, "EnqueueTask", Text("queue", queue), Text("name", name),
                    Json("input", input),
                    Int("priority", option_number("--priority", 0, -1000000, 1000000)));
    return get_text(task, "id");
}

/* All lines are looked at before the first is enqueued, and enqueued in one
   transaction. */
static void submit_file(const char *name, const char *path)
{
    int count;
    const char **lines = read_lines(path, &count);
    for (int i = 0; i < count; i++)
        lines[i] = check_input(lines[i], format("%s:%d", path, i + 1));
    exec(db, "Begin");
    for (int i = 0; i < count; i++) puts(enqueue(name, lines[i]));
    exec(db, "Commit");
}

static void submit(void)
{
    const char *name = word(0), *file = option("--file");
    read_options();
    if (!find_function(name))
        die_usage("there is no function \"%s\" (there are%s); nothing was enqueued",
                  name, function_names());
    if (file && word(1)) die_usage("JSON or --file, not both; nothing was enqueued");
    const char *input = file ? NULL : check_input(word(1) ? word(1) : "null", "JSON");
    db = open_db(SCHEMA);
    if (file) submit_file(name, file);
    else puts(enqueue(name, input));
    close_db(db);
}

static void show(void)
{
    int64_t id = word(0) ? word_number(0, "ID", 1, INT64_MAX) : 0;
    db = open_db(SCHEMA);
    Row *rows = id ? one(db, "ShowTask", Int("id", id)) : many(db, "ListTasks");
    if (id && !rows) die("there is no task %lld", (long long)id);
    if (id) print_row(rows);
    else print_rows(rows);
    close_db(db);
}

/* ---- functions: yours would stand here ---- */

static cJSON *noop(Run *run, const cJSON *input)
{
    (void)run, (void)input;
    return cJSON_CreateNull();
}

static cJSON *nap(Run *run, const cJSON *input)
{
    (void)run;
    int ms = number_in(input, "ms");
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L},
              NULL);
    return cJSON_CreateNull();
}

/* Ends its own process: with {"signal": 11}, with {"exit": true}, or else with
   SIGKILL. */
static cJSON *crash(Run *run, const cJSON *input)
{
    int number = number_in(input, "signal");
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(input, "exit"))) exit(0);
    signal(number, SIG_DFL);
    raise(number ? number : SIGKILL);
    return fail(run, "it survived signal %d", number);
}

static cJSON *write_letter(Run *run, const cJSON *input)
{
    const char *recipient = text_in(input, "to");
    if (!recipient) return fail(run, "a letter to nobody");
    exec(db, "WriteLetter", Text("recipient", recipient), Int("worker", getpid()));
    return cJSON_CreateString(format("Dear %s", recipient));
}

/* ---- the demo ---- */

/* A purchase and the task that it needs, in one transaction: the caller's own. */
static void buy(const char *id, const char *buyer, bool changes_mind)
{
    exec(db, "Begin");
    exec(db, "AddPurchase", Text("id", id), Int("amount", 4500));
    enqueue("write_letter",
            format("{\"purchase\": \"%s\", \"to\": \"%s\"}", id, buyer));
    if (changes_mind) exec(db, "Rollback");
    else exec(db, "Commit");
    Row *count = one(db, "CountPurchases", Text("id", id));
    say("%s %s: %s purchase, %s task", id, changes_mind ? "rolled back" : "committed",
        get_text(count, "purchases"), get_text(count, "tasks"));
    expect(get_int(count, "purchases") == !changes_mind &&
               get_int(count, "tasks") == !changes_mind,
           "a purchase and its task exist both or neither");
}

static pid_t start_worker(int number)
{
    demo_pid = getpid();  // of the child's parent, also if that dies at once
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    if (pid > 0) return pid;
    leave_db(db);
    speak_as("worker %d", number);
    db = open_db(SCHEMA);
    work();
    exit(0);
}

static void wait_a_moment(void)
{
    expect(!waitpid(-1, NULL, WNOHANG),
           "workers live until they are stopped (the reason stands above)");
    poll(NULL, 0, 10);
}

static void wait_until_done(void)
{
    enum { PATIENCE_MS = 5000 };
    double since = elapsed_ms();
    for (int64_t n, before = 0; (n = get_int(one(db, "CountUnfinished"), "n"));
         before = n) {
        if (n != before) since = elapsed_ms();
        expect(elapsed_ms() < since + PATIENCE_MS, "tasks go on until all are done");
        progress("tasks to do: %lld", (long long)n);
        wait_a_moment();
    }
}

static void show_sixty_tasks(void)
{
    enum { WORKERS = 3 };
    pid_t workers[WORKERS];
    for (int i = 2; i <= 60; i++)
        enqueue("write_letter", i == 13 ? "{}" : format("{\"to\": \"person %d\"}", i));
    quiet = true;
    for (int i = 0; i < WORKERS; i++) workers[i] = start_worker(i + 1);
    wait_until_done();
    for (int i = 0; i < WORKERS; i++) {
        kill(workers[i], SIGTERM);
        waitpid(workers[i], NULL, 0);
    }
    quiet = false;
    print_rows(many(db, "CountByWorker"));
    Row *count = one(db, "CountLetters");
    say("%s letters to %s people", get_text(count, "letters"),
        get_text(count, "recipients"));
    print_rows(many(db, "ListFailed"));
    expect(get_int(count, "letters") == 59 && get_int(count, "recipients") == 59,
           "of sixty tasks each ran once, and one had nobody to write to");
}

static void show_crash(void)
{
    enqueue("crash", "null");
    start_process(claim_task());
    while (!bury_the_dead()) poll(NULL, 0, 10);
    enqueue("write_letter", "{\"to\": \"the next one\"}");
    start_process(claim_task());
    while (!bury_the_dead()) poll(NULL, 0, 10);
    Row *running = many(db, "ListRunning");
    print_rows(running);
    expect(running && !running->next && !strcmp(get_text(running, "name"), "crash"),
           "the killed task is still 'running', and nothing else is");
}

static void demo(void)
{
    poll_ms = env_ms("POLL_MS", 100);
    db = fresh_db(SCHEMA);
    headline("A purchase and its task: both or neither");
    buy("A1", "person 0", true);
    buy("A2", "person 1", false);

    headline("Sixty tasks, three workers: each task runs once, and task 14 fails");
    show_sixty_tasks();

    headline("A task kills its process: the next one runs, but this one is 'running' "
             "for ever");
    show_crash();

    headline("All of it came true.  Lesson 04 will find the task that nobody runs any "
             "more.");
    close_db(db);
}

/* A process for each task, and no limit: more of them than Postgres has connections. */
static void overload(void)
{
    int errors[2];
    char complaint[512] = "";
    db = fresh_db(SCHEMA);
    int tasks = (int)get_int(one(db, "MaxConnections"), "n") + 200;
    say("%d tasks of two seconds, and %d connections", tasks, tasks - 200);
    for (int i = 0; i < tasks; i++) enqueue("sleep", "{\"ms\": 2000}");
    if (pipe(errors) < 0) die("no pipe");
    dup2(errors[1], STDERR_FILENO);
    quiet = true;
    for (Row *task; (task = claim_task());) start_process(task);
    while (bury_the_dead() || !waitid(P_ALL, 0, &(siginfo_t){0}, WEXITED | WNOWAIT))
        continue;
    if (read(errors[0], complaint, sizeof complaint - 1) < 0) die("no complaint");
    say("the first complaint of many:");
    say("%s", first_line(complaint));
    Row *count = many(db, "CountByStatus");
    print_rows(count);
    expect(count->next && !strcmp(get_text(count->next, "status"), "running"),
           "tasks are left 'running' because their processes could not connect");
    headline("Nothing runs any more, whatever the rows say.  Lesson 03 limits the "
             "processes.");
    close_db(db);
}

/* ---- the program ---- */

static const struct {
    const char *name;
    Function *function;
} registry[] = {
    {"noop", noop},
    {"sleep", nap},
    {"crash", crash},
    {"write_letter", write_letter},
};
enum { FUNCTIONS = sizeof registry / sizeof *registry };

static Function *find_function(const char *name)
{
    for (int i = 0; i < FUNCTIONS; i++)
        if (!strcmp(registry[i].name, name)) return registry[i].function;
    return NULL;
}

static const char *function_names(void)
{
    const char *names = "";
    for (int i = 0; i < FUNCTIONS; i++)
        names = format("%s %s", names, registry[i].name);
    return names;
}

int main(int argc, char **argv)
{
    static const Command commands[] = {
        {"", "", demo, "the demo"},
        {"worker", "[--queue Q]", worker, "run tasks, a process for each"},
        {"drain", "[--queue Q]", drain, "run what is queued, in this process, and end"},
        {"submit", "NAME [JSON] [--queue Q] [--priority N] [--file INPUTS.jsonl]",
         submit, "enqueue a task, or one for each line of a file"},
        {"show", "[ID]", show, "the last tasks, or one"},
        {"overload", "", overload, "a demo of too many processes"},
    };
    return run_command(commands, sizeof commands / sizeof *commands, argc, argv);
}
