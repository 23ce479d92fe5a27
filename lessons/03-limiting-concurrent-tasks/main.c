/* Lesson 03: limiting concurrent tasks.

   What this program can do that the last could not: it limits.  A worker has a number
   of slots; a queue can have a number of permits, which holds for all workers together;
   a task can have a time.  Asked to stop, a worker finishes what runs and takes nothing
   new.

   The idea:       a limit is rows.  A permit is taken like a task: for update skip
                   locked.
   The invariant:  of a queue with three permits, at no instant do four tasks run.
   Still wrong:    when a whole worker is killed, its tasks stay 'running' for ever, and
                   keep their permits (lesson 04). */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "db.h"
#include "json.h"
#include "memory.h"

static Db *db;  // the connection of this process; each process opens its own
static const char *queue = "default";
static int poll_ms, tick_ms;
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

static int my_slot;

static const char *worker_name(int pid, int slot)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    return format("%s:%d slot %d", host, pid, slot);
}

static bool is_over(void);  // no task is begun any more

static Row *claim_task(void)
{
    if (is_over()) return NULL;
    const char *me = worker_name(getpid(), my_slot);
    Row *task = one(db, "ClaimTask", Text("queue", queue), Text("worker", me));
    if (task) return task;
    return one(db, "ClaimTaskWithPermit", Text("queue", queue), Text("worker", me));
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

/* Returns the next task.  Whoever has finished one wants the next: both statements
   are sent together, and committed together. */
static Row *run_task(const Row *task)
{
    Run run = {.id = get_int(task, "id"), .name = get_text(task, "name")};
    const char *output = call_function(&run, get_json(task, "input"));
    if (output) also(db, "CompleteTask", Int("id", run.id), Json("output", output));
    else also(db, "FailTask", Int("id", run.id), Text("error", run.error));
    Row *next = claim_task();
    if (also_changed(db) && !quiet)
        say("task %lld %s", (long long)run.id, output ? "completed" : run.error);
    return next;
}

/* ---- what the processes of a worker share ---- */

enum { MOST_SLOTS = 64, PAUSE_MS = 500 };

/* Each field has one writer, and one who clears it.  What the process in the seat
   writes passes to the supervisor when that process is dead. */
typedef struct {
    pid_t pid;             // supervisor: the process in this seat, or 0
    double started;        // supervisor: when it was
    atomic_llong task;     // the process in the seat: what it runs, or 0
    atomic_bool idle;      // the process in the seat: it waits for the bell
    atomic_llong overdue;  // lookout: the task for which it is to be killed
    atomic_int dead;       // supervisor: who died here; his successor clears it
    char death[80];        // supervisor: of what
} Seat;

typedef struct {
    Seat seat[MOST_SLOTS + 1];  // the slots; number 0 is the lookout
    atomic_bool connected;      // the lookout is
    atomic_bool stopping;
} Shared;

static Shared *shared;

static int slots;
static pid_t demo_pid;   // a worker that the demo has started ends with it
static int bell[2];      // a byte in this pipe wakes one idle slot
static int lifeline[2];  // its other end only the supervisor holds

static void ring(int times)
{
    while (times-- > 0 && write(bell[1], "!", 1) == 1) continue;
}

static bool supervisor_is_gone(int wait_ms)
{
    return poll(&(struct pollfd){.fd = lifeline[0]}, 1, wait_ms) > 0;
}

static bool is_over(void)
{
    return shared && (shared->stopping || supervisor_is_gone(0));
}

/* ---- a slot: runs one task at a time ---- */

/* Whoever takes a dead process's seat says what became of its task.  The claim in the
   task's row names its owner; one that was on its way when its owner died is not
   found. */
static void report_the_dead(Seat *seat)
{
    if (!seat->dead) return;
    if (exec(db, "FailTaskOf", Text("queue", queue),
             Text("worker", worker_name(seat->dead, my_slot)),
             Text("error", seat->death)))
        say("the task of process %d has failed: %s", seat->dead, seat->death);
    seat->dead = 0;
}

/* Returns false if Postgres speaks unasked: it says goodbye. */
static bool wait_for_bell(Seat *seat)
{
    struct pollfd ends[] = {{.fd = bell[0], .events = POLLIN},
                            {.fd = lifeline[0]},
                            {.fd = PQsocket(connection(db)), .events = POLLIN}};
    seat->idle = true;
    poll(ends, 3, -1);
    seat->idle = false;
    (void)!read(bell[0], &(char){0}, 1);  // nothing, if somebody else was faster
    return !ends[2].revents;
}

static void be_slot(Seat *seat)
{
    report_the_dead(seat);
    Row *task = claim_task();
    speak_again();
    while (task || (!is_over() && wait_for_bell(seat))) {
        forget_memory();
        if (task) {
            seat->task = get_int(task, "id");
            task = run_task(task);
            seat->task = 0;
        } else task = claim_task();
    }
}

/* ---- the lookout: does what concerns all slots ---- */

static void look_for_work(void)
{
    int idle = 0;
    for (int i = 1; i <= slots; i++) idle += shared->seat[i].idle;
    if (!idle) return;
    Row *work = one(db, "LookForWork", Text("queue", queue), Int("idle", idle));
    ring((int)get_int(work, "tasks"));
}

static void look_for_overdue(void)
{
    const char *ids = "";
    for (int i = 1; i <= slots; i++)
        if (shared->seat[i].task)
            ids = format("%s%s%lld", ids, *ids ? "," : "",
                         (long long)shared->seat[i].task);
    if (!*ids) return;
    Row *row = many(db, "FindOverdue", Text("ids", format("{%s}", ids)));
    for (; row; row = row->next)
        for (int i = 1; i <= slots; i++)
            if (shared->seat[i].task == get_int(row, "id"))
                shared->seat[i].overdue = get_int(row, "id");
}

static void be_lookout(void)
{
    double next_tick = 0;
    shared->connected = true;
    while (!supervisor_is_gone(poll_ms)) {
        forget_memory();
        if (!shared->stopping) look_for_work();
        if (elapsed_ms() < next_tick) continue;
        look_for_overdue();
        next_tick = elapsed_ms() + tick_ms;
        if (speak_again()) say("is there again");
    }
}

/* ---- the supervisor: forks the others, and starts again what dies ---- */

static volatile sig_atomic_t asked_to_stop;  // how often
static void count_signal(int number) { (void)number, asked_to_stop++; }
static void wake_up(int number) { (void)number; }

static void start_process(int number)
{
    Seat *seat = &shared->seat[number];
    bool again = seat->started;
    seat->started = elapsed_ms();
    seat->idle = false;
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    if (pid > 0) {
        seat->pid = pid;  // only here: the child would write its 0 into the same memory
        return;
    }
    signal(SIGINT, SIG_IGN);  // Ctrl-C is for the supervisor
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    close(lifeline[1]);
    my_slot = number;
    if (number) speak_as("slot %d", number);
    else speak_as("lookout");
    if (again) die_silently();
    db = open_db(SCHEMA);
    if (!again && number < 2) arm_crash(number ? "" : "lookout");
    if (number) be_slot(seat);
    else be_lookout();
    close_db(db);
    exit(0);
}

/* A function that calls exit(0) has not come to its end. */
static const char *cause_of_death(const Seat *seat, int status)
{
    if (!status && !seat->task) return NULL;
    return WIFSIGNALED(status)
               ? format("its process died of signal %d", WTERMSIG(status))
               : format("its process ended with status %d", WEXITSTATUS(status));
}

static void note_death(int number, const char *why)
{
    Seat *seat = &shared->seat[number];
    if (!number) shared->connected = false;
    else if (why && !seat->dead) {
        seat->dead = seat->pid;
        snprintf(seat->death, sizeof seat->death, "%s", why);
        say("slot %d is gone: %s", number, why);
    }
    seat->pid = 0;
    seat->task = 0;
}

/* SIGCHLD of another process must not end the wait. */
static int wait_for(pid_t pid, int options)
{
    int status = 0;
    while (waitpid(pid, &status, options) < 0 && errno == EINTR) continue;
    return status;
}

/* A process is stopped before it is killed: it may have come to its next task
   meanwhile. */
static void kill_overdue(int number)
{
    Seat *seat = &shared->seat[number];
    if (!seat->pid || !seat->overdue) return;
    kill(seat->pid, SIGSTOP);
    int status = wait_for(seat->pid, WUNTRACED);
    if (WIFSTOPPED(status) && seat->task != seat->overdue) kill(seat->pid, SIGCONT);
    else if (WIFSTOPPED(status)) {
        kill(seat->pid, SIGKILL);
        wait_for(seat->pid, 0);
        note_death(number, "it took longer than its timeout");
    } else note_death(number, cause_of_death(seat, status));
    seat->overdue = 0;
}

/* Slots are started when the lookout has a connection: one complaint is enough.  None
   is started twice within PAUSE_MS. */
static void fill_seats(void)
{
    for (int i = 0; i <= slots; i++) {
        Seat *seat = &shared->seat[i];
        if (seat->pid || (i && !shared->connected)) continue;
        if (i && shared->stopping && !seat->dead) continue;
        if (seat->started && elapsed_ms() < seat->started + PAUSE_MS) continue;
        start_process(i);
    }
}

static int unfinished_seats(void)
{
    int busy = 0;
    for (int i = 1; i <= slots; i++)
        busy += shared->seat[i].pid || (shared->seat[i].dead && shared->connected);
    return busy;
}

static void stop_at_once(void)
{
    for (int i = 0; i <= slots; i++)
        if (shared->seat[i].pid) kill(shared->seat[i].pid, SIGKILL);
    die("stopped at once: what was running stays 'running'");
}

/* Whoever ended by die() will do so again: a worker puts up with it, a demo stops. */
static void bury_the_dead(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (int i = 0; i <= slots; i++)
            if (shared->seat[i].pid == pid)
                note_death(i, cause_of_death(&shared->seat[i], status));
        if (demo_pid && WIFEXITED(status) && WEXITSTATUS(status)) stop_at_once();
    }
}

static void supervise(void)
{
    while (!shared->stopping || unfinished_seats()) {
        if (asked_to_stop && !shared->stopping) {
            say("stops; what runs is finished (a second Ctrl-C does not wait)");
            shared->stopping = true;
        }
        if (asked_to_stop > 1 || (demo_pid && getppid() != demo_pid)) stop_at_once();
        if (shared->stopping) ring(unfinished_seats());
        forget_memory();
        bury_the_dead();
        fill_seats();
        for (int i = 1; i <= slots; i++) kill_overdue(i);
        poll(NULL, 0, 50);  // or until a signal comes
    }
    close(lifeline[1]);
    while (wait(NULL) > 0 || errno == EINTR)
        if (asked_to_stop > 1) stop_at_once();
}

static void prepare_to_supervise(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("no shared memory: %s", strerror(errno));
    if (pipe(bell) < 0 || pipe(lifeline) < 0) die("no pipe: %s", strerror(errno));
    fcntl(bell[0], F_SETFL, O_NONBLOCK);
    fcntl(bell[1], F_SETFL, O_NONBLOCK);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = count_signal}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = count_signal}, NULL);
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = wake_up}, NULL);
}

/* ---- commands ---- */

static void read_options(void)
{
    poll_ms = env_ms("POLL_MS", 200);
    tick_ms = env_ms("TICK_MS", 2000);
    if (option("--queue")) queue = option("--queue");
}

static void worker(void)
{
    read_options();
    slots = (int)option_number("--slots", 4, 1, MOST_SLOTS);
    close_db(open_db(SCHEMA));  // checks every statement, for all that we fork
    prepare_to_supervise();
    say("%d slots for queue \"%s\"; Ctrl-C ends it", slots, queue);
    supervise();
    say("has stopped");
}

/* One process, no forks, until nothing is left to do: for tests and debuggers. */
static void drain(void)
{
    read_options();
    db = open_db(SCHEMA);
    arm_crash("");
    for (Row *task = claim_task(); task; forget_memory()) task = run_task(task);
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
    Row *task =
        one(db, "EnqueueTask", Text("queue", queue), Text("name", name),
            Json("input", input),
            Int("priority", option_number("--priority", 0, -1000000, 1000000)),
            option("--timeout-ms")
                ? Int("timeout_ms", option_number("--timeout-ms", 0, 1, 86400000))
                : Text("timeout_ms", NULL));
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

static void set_limit(const char *of, int64_t most)
{
    exec(db, "Begin");
    exec(db, "LockLimit", Text("queue", of));
    exec(db, "SetLimit", Text("queue", of), Int("most", most));
    exec(db, "Commit");
}

static void limit(void)
{
    int64_t most = word_number(1, "N", 0, 1000);
    db = open_db(SCHEMA);
    set_limit(word(0), most);
    print_rows(many(db, "ListPermits"));
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

/* ---- the demo ---- */

static void add_tasks(int count, int ms, const char *timeout_ms)
{
    for (int i = 0; i < count; i++)
        one(db, "EnqueueTask", Text("queue", queue), Text("name", "sleep"),
            Int("priority", 0), Json("input", format("{\"ms\": %d}", ms)),
            timeout_ms ? Int("timeout_ms", atoi(timeout_ms))
                       : Text("timeout_ms", NULL));
}

static pid_t start_worker(int number, int with_slots)
{
    demo_pid = getpid();  // of the child's parent, also if that dies at once
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    if (pid > 0) return pid;
    leave_db(db);
    speak_as("worker %d", number);
    slots = with_slots;
    prepare_to_supervise();
    supervise();
    exit(0);
}

static void stop_worker(pid_t pid)
{
    kill(pid, SIGTERM);
    if (waitpid(pid, NULL, 0) < 0) die("a worker is gone");
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

/* Two workers with four slots each share the tasks of the queue.  Returns the most at
   once. */
static int64_t share_tasks(void)
{
    pid_t left = start_worker(1, 4), right = start_worker(2, 4);
    wait_until_done();
    stop_worker(left);
    stop_worker(right);
    return get_int(one(db, "MostAtOnce", Text("queue", queue)), "most");
}

static void show_slots(void)
{
    add_tasks(300, 10, NULL);
    int64_t most = share_tasks();
    say("300 tasks, two workers with four slots each: %lld at once", (long long)most);
    expect(most <= 8, "eight slots run at most eight tasks at once");
}

static void show_limit(void)
{
    queue = "mail";
    set_limit(queue, 3);
    add_tasks(24, 50, NULL);
    int64_t most = share_tasks();
    queue = "default";
    say("24 tasks of a queue with three permits: %lld at once", (long long)most);
    print_rows(many(db, "ListPermits"));
    expect(most == 3, "three permits: three tasks at once, and not four");
}

static void show_timeout(void)
{
    add_tasks(1, 60000, "300");
    pid_t pid = start_worker(3, 1);
    wait_until_done();
    stop_worker(pid);
    Row *failed = many(db, "ListFailed");
    print_rows(failed);
    expect(failed != NULL, "a task that took longer than its timeout has failed");
}

static void show_stop(void)
{
    queue = "night";
    add_tasks(8, 400, NULL);
    pid_t pid = start_worker(4, 4);
    while (get_int(one(db, "CountRunning"), "n") < 4) wait_a_moment();
    stop_worker(pid);
    queue = "default";
    print_rows(many(db, "CountByStatus"));
    expect(!get_int(one(db, "CountRunning"), "n"),
           "what ran was finished, and nothing new begun");
}

static void demo(void)
{
    poll_ms = env_ms("POLL_MS", 50);
    tick_ms = env_ms("TICK_MS", 100);
    quiet = true;
    db = fresh_db(SCHEMA);
    headline("A worker has slots: its limit");
    show_slots();
    headline("A queue has permits: a limit for all workers together");
    show_limit();
    headline("A task has a timeout: after it, its process is killed");
    show_timeout();
    headline("Asked to stop, a worker finishes what runs and takes nothing new");
    show_stop();
    headline("All of it came true.  Lesson 04: what if a whole worker is killed?");
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
        {"worker", "[--slots N] [--queue Q]", worker, "run tasks, so many at a time"},
        {"drain", "[--queue Q]", drain, "run what is queued, in this process, and end"},
        {"submit",
         "NAME [JSON] [--queue Q] [--priority N] [--timeout-ms N] [--file "
         "INPUTS.jsonl]",
         submit, "enqueue a task, or one for each line of a file"},
        {"limit", "QUEUE N", limit, "let so many tasks of a queue run at once"},
        {"show", "[ID]", show, "the last tasks, or one"},
    };
    return run_command(commands, sizeof commands / sizeof *commands, argc, argv);
}
