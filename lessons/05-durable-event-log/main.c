/* Lesson 05: a durable event log.

   What this program can do that the last could not: a task remembers its steps.  Each
   step's result is written to the task's log; when the task is run again, the function
   runs from its beginning, but a step that is in the log is not called: its result
   comes from there.

   The idea:       a function and its log are a state that survives any crash.
   The invariant:  a recorded step never runs again.  One that was running when its
                   process died does: an effect on the world needs a key that the other
                   side knows.
   Still wrong:    the log says what was done first, second, third; that the function
                   still does the same, nobody checks (lesson 06). */

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
static int poll_ms, tick_ms, lease_ms, backoff_ms;
static bool quiet;

/* ---- a run: what a task's function sees of its task ---- */

typedef struct {
    const char *kind, *name, *input;
    const char *result, *error;  // one of them
} Event;

typedef struct {
    int64_t id;
    const char *name;
    const char *claim;  // the token that this attempt writes with
    int attempt;        // the first is 1
    const char *error;  // why it failed
    bool for_good;      // and trying again makes no sense
    Event *log;         // what the attempts before did, and then this one
    int events;         // its length
    int position;       // the next one to replay
    const char *step;   // the step that runs now, or NULL
    int tries;          // and how often it was tried, this time included
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

/* For errors that no other attempt will mend: return fail_for_good(run, "no such
   city"). */
#define fail_for_good(run, ...) ((run)->for_good = true, fail(run, __VA_ARGS__))

static Function *find_function(const char *name);
static const char *function_names(void);

/* ---- the log: what a task has done already ---- */

static Event *add_event(Run *run, Event event)
{
    bool full = !(run->events & (run->events - 1));  // at 0, 1, 2, 4, 8, ...
    if (full) {
        Event *larger =
            take(sizeof *larger * (size_t)(run->events ? 2 * run->events : 1));
        if (run->events) memcpy(larger, run->log, sizeof *larger * (size_t)run->events);
        run->log = larger;
    }
    run->log[run->events] = event;
    return &run->log[run->events++];
}

static void load_log(Run *run)
{
    Row *row = many(db, "LoadLog", Int("id", run->id));
    for (; row; row = row->next) {
        if (get_int(row, "seq") != run->events)
            die("task %lld: its log has no event %d", (long long)run->id, run->events);
        add_event(run, (Event){.kind = get_text(row, "kind"),
                               .name = get_text(row, "name"),
                               .input = get_json(row, "input"),
                               .result = get_json(row, "result"),
                               .error = get_text(row, "error")});
    }
}

/* The next event of the log, or NULL where the log ends: from there on we do new
   things. */
static Event *replayed(Run *run, const char *kind, const char *name)
{
    if (run->position == run->events) return NULL;
    Event *event = &run->log[run->position];
    if (!quiet)
        say("task %lld: event %d, %s %s, is in the log", (long long)run->id,
            run->position, kind, name);
    run->position++;
    return event;
}

/* What was stored is what you get, the first time as every time. */
static cJSON *outcome(Run *run, const Event *event)
{
    char *why;
    if (!event->result) return fail(run, "%s", event->error);
    cJSON *value = decode(event->result, &why);
    return value ? value : fail(run, "what is in the log is no good: %s", why);
}

static Event *record(Run *run, Event event)
{
    Row *row = one(db, "RecordEvent", Int("id", run->id), Text("claim", run->claim),
                   Int("seq", run->events), Text("kind", event.kind),
                   Text("name", event.name), Json("input", event.input),
                   Json("result", event.result), Text("error", event.error));
    if (!row)
        die("task %lld: the claim is lost, nothing was written", (long long)run->id);
    run->position++;
    event.result = get_json(row, "result");
    return add_event(run, event);
}

/* Calls the function, up to so many times.  Returns its result as JSON, or NULL and
   run->error. */
static const char *do_step(Run *run, int most, Function *function, const cJSON *input)
{
    char *why;
    for (run->tries = 1;; run->tries++) {
        run->error = NULL;
        run->for_good = false;
        cJSON *output = function(run, input);
        const char *text = output ? encode(output, &why) : NULL;
        if (output && !text) fail_for_good(run, "its output is no good: %s", why);
        if (!output && !run->error) fail(run, "it gave no reason");
        if (run->for_good) return NULL;
        if (text || run->tries >= most) return text;
        Row *pause = one(db, "PauseStep", Int("tries", run->tries),
                         Int("backoff_ms", backoff_ms));
        poll(NULL, 0, (int)get_int(pause, "ms"));
    }
}

/* Runs a function once, or up to so many times if it fails, and remembers its result or
   its error for all attempts to come. */
static cJSON *try_step(Run *run, int tries, const char *name, Function *function,
                       const cJSON *input)
{
    char *why;
    const char *text = input ? encode(input, &why) : "null";
    if (run->step)
        return fail_for_good(run, "it calls step %s: only a task's function can", name);
    if (!text)
        return fail_for_good(run, "the input of step %s is no good: %s", name, why);
    Event *event = replayed(run, "step", name);
    if (event) return outcome(run, event);
    run->step = name;
    const char *result = do_step(run, tries, function, input);
    run->step = NULL;
    run->for_good = false;
    event = record(run, (Event){.kind = "step",
                                .name = name,
                                .input = text,
                                .result = result,
                                .error = result ? NULL : run->error});
    return outcome(run, event);
}

static cJSON *step(Run *run, const char *name, Function *function, const cJSON *input)
{
    return try_step(run, 1, name, function, input);
}

/* Task, place in its log, step: the same whenever that is tried again, also by retry;
   and by replay, if what comes before is the same.  So the other side knows it. */
static const char *step_key(const Run *run)
{
    return run->step ? format("%lld/%d/%s", (long long)run->id, run->events, run->step)
                     : format("%lld", (long long)run->id);
}

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
    Row *task = one(db, "ClaimTask", Text("queue", queue), Text("worker", me),
                    Int("lease_ms", lease_ms));
    if (task) return task;
    return one(db, "ClaimTaskWithPermit", Text("queue", queue), Text("worker", me),
               Int("lease_ms", lease_ms));
}

/* With a log it would take the same path again, and fail in the same place. */
static bool may_try_again(const Run *run) { return !run->for_good && !run->events; }

/* Whatever goes wrong from here on ends up in the task's row, and in no other place. */
static const char *call_function(Run *run, const char *stored)
{
    char *why;
    Function *function = find_function(run->name);
    if (!function)
        return fail_for_good(run, "this worker has no function \"%s\"", run->name);
    cJSON *input = decode(stored, &why);
    if (!input) return fail_for_good(run, "its input is no good: %s", why);
    cJSON *output = function(run, input);
    if (!output) return run->error ? NULL : fail(run, "it gave no reason");
    char *text = encode(output, &why);
    return text ? text : fail(run, "its output is no good: %s", why);
}

static void say_lost(const Run *run)
{
    say("task %lld: the claim is lost, nothing was written", (long long)run->id);
}

static void end_attempt(const Run *run)
{
    Row *end = one(db, "EndAttempt", Int("id", run->id), Text("claim", run->claim),
                   Text("error", run->error), Int("again", may_try_again(run)),
                   Int("backoff_ms", backoff_ms));
    if (!end) say_lost(run);
    else if (!quiet && !strcmp(get_text(end, "status"), "waiting"))
        say("task %lld: %s; again in %s ms", (long long)run->id, run->error,
            get_text(end, "again_in_ms"));
    else if (!quiet) say("task %lld failed: %s", (long long)run->id, run->error);
}

/* Returns the next task.  Whoever has completed one wants the next: both statements
   are sent together, and committed together. */
static Row *run_task(const Row *task)
{
    Run run = {.id = get_int(task, "id"),
               .name = get_text(task, "name"),
               .claim = get_text(task, "claim"),
               .attempt = (int)get_int(task, "attempt")};
    if (run.attempt > 1) load_log(&run);
    const char *output = call_function(&run, get_json(task, "input"));
    if (!output) end_attempt(&run);
    else
        also(db, "CompleteTask", Int("id", run.id), Text("claim", run.claim),
             Json("output", output));
    Row *next = claim_task();
    if (output && !also_changed(db)) say_lost(&run);
    else if (output && !quiet) say("task %lld completed", (long long)run.id);
    return next;
}

/* ---- what the processes of a worker share ---- */

enum { MOST_SLOTS = 64, PAUSE_MS = 500 };

/* Each field has one writer, and one who clears it.  What the process in the seat
   writes passes to the supervisor when that process is dead. */
typedef struct {
    pid_t pid;          // supervisor: the process in this seat, or 0
    double started;     // supervisor: when it was
    atomic_llong task;  // the process in the seat: what it runs, or 0
    atomic_int run;     // the process in the seat: how many it has begun to run
    atomic_bool idle;   // the process in the seat: it waits for the bell
    atomic_int doomed;  // lookout: the run for which it is to be killed, or 0
    char why[40];       // lookout: and why
    atomic_int dead;    // supervisor: who died here; 0 when that is reported
    char death[80];     // supervisor: of what
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

static void note_run(Seat *seat, int64_t task)
{
    seat->task = 0;
    seat->run++;
    seat->task = task;
}

/* Whoever takes a dead process's seat says what became of its task.  The worker in the
   task's row is its name, so it is found however early that one died. */
static void report_the_dead(Seat *seat)
{
    if (!seat->dead) return;
    Row *task = many(db, "EndAttemptOf", Text("queue", queue),
                     Text("worker", worker_name(seat->dead, my_slot)),
                     Text("error", seat->death), Int("backoff_ms", backoff_ms));
    if (task)
        say("task %s, now %s: %s", get_text(task, "id"), get_text(task, "status"),
            seat->death);
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
            note_run(seat, get_int(task, "id"));
            task = run_task(task);
            note_run(seat, 0);
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

/* Whatever is past its alarm, of whichever worker.  Returns how many: there may be
   more. */
static int sweep(void)
{
    enum { AT_ONCE = 100 };  // we have to beat, too
    int swept = 0;
    Row *row;
    if (!get_int(one(db, "AnyDue"), "due")) return 0;
    for (row = many(db, "WakeTasks"); row; row = row->next, swept++)
        if (strcmp(get_text(row, "was"), "waiting"))
            say("task %s, now queued: its worker was lost", get_text(row, "id"));
    for (int i = 0; i < AT_ONCE && (row = one(db, "GiveUpTask")); i++, swept++)
        say("task %s, now failed: %s", get_text(row, "id"), get_text(row, "error"));
    return swept;
}

/* One heartbeat does three things: it renews the leases of our living slots, and learns
   who was cancelled, took too long, or has lost its task to another.  A slot may take
   its next task while we look: so the run's number is read before the task, and
   the supervisor looks whether it is still that one. */
static void beat(void)
{
    for (int i = 1; i <= slots; i++) {
        Seat *seat = &shared->seat[i];
        int run = seat->run;
        int64_t task = seat->task;
        if (!seat->pid || !task) continue;
        const char *worker = worker_name(seat->pid, i);
        exec(db, "RenewLease", Int("id", task), Text("worker", worker),
             Int("lease_ms", lease_ms));
        Row *doomed = one(db, "FindDoomed", Int("id", task), Text("worker", worker));
        if (!doomed) continue;
        snprintf(seat->why, sizeof seat->why, "%s", get_text(doomed, "why"));
        seat->doomed = run;
    }
}

static void be_lookout(void)
{
    double next_tick = 0;
    shared->connected = true;
    while (!supervisor_is_gone(poll_ms)) {
        forget_memory();
        if (!shared->stopping) look_for_work();
        if (elapsed_ms() < next_tick) continue;
        beat();  // first: our own leases may have ended while we were frozen
        if (!sweep()) next_tick = elapsed_ms() + tick_ms;
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
    seat->run++;
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
static void kill_doomed(int number)
{
    Seat *seat = &shared->seat[number];
    if (!seat->pid || !seat->doomed) return;
    kill(seat->pid, SIGSTOP);
    int status = wait_for(seat->pid, WUNTRACED);
    if (WIFSTOPPED(status) && seat->run != seat->doomed) kill(seat->pid, SIGCONT);
    else if (WIFSTOPPED(status)) {
        kill(seat->pid, SIGKILL);
        wait_for(seat->pid, 0);
        note_death(number, seat->why);
    } else note_death(number, cause_of_death(seat, status));
    seat->doomed = 0;
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
    die("stopped at once: what was running is found when its lease ends");
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
        for (int i = 1; i <= slots; i++) kill_doomed(i);
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
    lease_ms = env_ms("LEASE_MS", 10000);
    backoff_ms = env_ms("BACKOFF_MS", 1000);
    if (lease_ms < 3 * tick_ms)
        die_usage(
            "LEASE_MS is at least three times TICK_MS, or healthy tasks are lost");
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

/* One process, no forks, until nothing is queued or due: for tests and debuggers. */
static void drain(void)
{
    read_options();
    db = open_db(SCHEMA);
    arm_crash("");
    for (Row *task = claim_task(); task || sweep(); forget_memory())
        task = task ? run_task(task) : claim_task();
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

/* An option that is null in the row if it is not given. */
static Arg optional(const char *parameter, const char *name)
{
    return option(name) ? Int(parameter, option_number(name, 0, 1, 86400000))
                        : Text(parameter, NULL);
}

static const char *enqueue(const char *name, const char *input)
{
    Row *task =
        one(db, "EnqueueTask", Text("queue", queue), Text("name", name),
            Json("input", input),
            Int("priority", option_number("--priority", 0, -1000000, 1000000)),
            Int("delay_ms", option_number("--delay-ms", 0, 0, 2000000000)),
            optional("timeout_ms", "--timeout-ms"),
            optional("patience_ms", "--patience-ms"), Text("key", option("--key")));
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
    if (file && option("--key"))
        die_usage("a key is for one task, not for a file; nothing was enqueued");
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
    Row *log = id ? many(db, "ShowLog", Int("id", id)) : NULL;
    if (log) print_rows(log);
    int64_t age = get_int(one(db, "OldestSnapshot"), "age_s");
    if (age > 60)
        say("a transaction has been open for %lld s and keeps dead rows alive",
            (long long)age);
    close_db(db);
}

static _Noreturn void refuse(int64_t id, const char *what)
{
    Row *task = one(db, "ShowTask", Int("id", id));
    if (!task) die("there is no task %lld", (long long)id);
    die("task %lld is %s and cannot be %s", (long long)id, get_text(task, "status"),
        what);
}

static void change_task(const char *statement, const char *what)
{
    int64_t id = word_number(0, "ID", 1, INT64_MAX);
    db = open_db(SCHEMA);
    if (!one(db, statement, Int("id", id))) refuse(id, what);
    close_db(db);
}

static void cancel_task(void) { change_task("CancelTask", "cancelled"); }
static void retry_task(void) { change_task("RetryTask", "retried"); }

/* Two statements, because one looks once: the log is emptied when we have the task. */
static void replay_task(void)
{
    int64_t id = word_number(0, "ID", 1, INT64_MAX);
    db = open_db(SCHEMA);
    exec(db, "Begin");
    if (!one(db, "ReplayTask", Int("id", id))) refuse(id, "replayed");
    exec(db, "EmptyLog", Int("id", id));
    exec(db, "Commit");
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

static cJSON *steps(Run *run, const cJSON *input)
{
    int count = number_in(input, "steps");
    for (int i = 0; i < count; i++)
        if (!step(run, "noop", noop, cJSON_CreateNumber(i))) return NULL;
    return cJSON_CreateNumber(count);
}

/* {"order": "A1", "amount": 4500, "ms": 500}: a bank that knows its keys, and a slow
   network. */
static cJSON *charge_payment(Run *run, const cJSON *order)
{
    const char *id = text_in(order, "order");
    int amount = number_in(order, "amount");
    if (!id) return fail_for_good(run, "an order without a name");
    if (amount < 1) return fail_for_good(run, "an order of nothing");
    if (amount > 100000) return fail_for_good(run, "the card is declined");
    if (!quiet) say("charges %d for order %s, with key %s", amount, id, step_key(run));
    exec(db, "Charge", Text("key", step_key(run)), Text("order_id", id),
         Int("amount", amount));
    nap(run, order);
    return cJSON_CreateString(format("%d paid", amount));
}

static int tries(const Run *run) { return run->step ? run->tries : run->attempt; }

/* {"order": "A1", "bounces": 2}: the first two tries do not get through. */
static cJSON *send_confirmation_email(Run *run, const cJSON *order)
{
    if (tries(run) <= number_in(order, "bounces"))
        return fail(run, "the mail server does not answer");
    if (!quiet) say("sends the mail for order %s", text_in(order, "order"));
    return cJSON_CreateString("sent");
}

/* {"crash": 1}: its process is killed, in the first attempt. */
static void maybe_crash(Run *run, const cJSON *input)
{
    if (run->attempt <= number_in(input, "crash")) crash(run, NULL);
}

static cJSON *process_order(Run *run, const cJSON *order)
{
    cJSON *charge = step(run, "charge", charge_payment, order);
    if (!charge) return fail(run, "payment: %s", run->error);

    maybe_crash(run, order);

    cJSON *email = try_step(run, 3, "email", send_confirmation_email, order);
    if (!email) return fail(run, "email: %s", run->error);
    return charge;
}

/* ---- the demo ---- */

/* In a process group of its own, so that a signal can reach all of it, like the loss of
   a machine. */
static pid_t start_worker(int number, int with_slots)
{
    demo_pid = getpid();  // of the child's parent, also if that dies at once
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    setpgid(pid, 0);  // both say it: whoever comes first
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
    enum { PATIENCE_MS = 8000 };
    double since = elapsed_ms();
    for (int64_t n, before = 0; (n = get_int(one(db, "CountUnfinished"), "n"));
         before = n) {
        if (n != before) since = elapsed_ms();
        expect(elapsed_ms() < since + PATIENCE_MS, "tasks go on until all are done");
        progress("tasks to do: %lld", (long long)n);
        wait_a_moment();
    }
}

static void run_worker(int number)
{
    pid_t pid = start_worker(number, 1);
    wait_until_done();
    stop_worker(pid);
}

static void show_crash_between_steps(void)
{
    enqueue("process_order", "{\"order\":\"A1\",\"amount\":4500,\"crash\":1}");
    run_worker(1);
    print_rows(many(db, "ShowLog", Int("id", 1)));
    print_rows(many(db, "ListPayments"));
    Row *count = one(db, "CountPayments");
    expect(get_int(count, "payments") == 1 && get_int(count, "tries") == 1,
           "the order was charged once");
}

/* The third statement of a process that works on an order: claim, charge, record. */
static void show_window(void)
{
    enqueue("process_order", "{\"order\":\"A2\",\"amount\":1999}");
    pid_t pid = fork();
    if (pid < 0) die("cannot fork: %s", strerror(errno));
    if (!pid) {
        leave_db(db);
        setenv("CRASH_AT", "3", true);
        drain();
        exit(0);
    }
    waitpid(pid, NULL, 0);
    run_worker(2);
    print_rows(many(db, "ListPayments"));
    Row *count = one(db, "CountPayments");
    expect(get_int(count, "payments") == 2 && get_int(count, "tries") == 3,
           "the second order was tried twice, and paid once");
}

static void show_remembered_error(void)
{
    enqueue("process_order", "{\"order\":\"A3\",\"amount\":999999}");
    run_worker(3);
    say("retry 3");
    one(db, "RetryTask", Int("id", 3));
    run_worker(4);
    print_rows(many(db, "ShowLog", Int("id", 3)));
    Row *task = one(db, "ShowTask", Int("id", 3));
    expect(!strcmp(get_text(task, "error"), "payment: the card is declined") &&
               !strcmp(get_text(task, "attempt"), "2 of 5"),
           "a step's error is remembered like its result");
}

static void demo(void)
{
    setenv("POLL_MS", "50", false);
    setenv("TICK_MS", "100", false);
    setenv("LEASE_MS", "1000", false);
    setenv("BACKOFF_MS", "50", false);
    read_options();
    db = fresh_db(SCHEMA);
    headline("A process is killed between two steps: the first one is not repeated");
    show_crash_between_steps();
    headline("Killed after the effect, before the record: tried twice, and paid once");
    show_window();
    headline("An error is remembered, too: retry finds it in the log");
    show_remembered_error();
    headline("All of it came true.  Lesson 06: what if the function does something "
             "else the second time?");
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
    {"steps", steps},
    {"charge_payment", charge_payment},
    {"send_confirmation_email", send_confirmation_email},
    {"process_order", process_order},
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
         "NAME [JSON] [--queue Q] [--priority N] [--timeout-ms N] [--delay-ms N] "
         "[--patience-ms N] [--key K] [--file INPUTS.jsonl]",
         submit, "enqueue a task, or one for each line of a file"},
        {"cancel", "ID", cancel_task, "at once, or within a tick if it runs"},
        {"retry", "ID", retry_task,
         "run a task that failed or was cancelled once more"},
        {"replay", "ID", replay_task, "run an ended task again, with an empty log"},
        {"limit", "QUEUE N", limit, "let so many tasks of a queue run at once"},
        {"show", "[ID]", show, "the last tasks, or one"},
    };
    return run_command(commands, sizeof commands / sizeof *commands, argc, argv);
}
