#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "memory.h"

/* ---- speaking ---- */

static struct timespec start;
static char speaker[32] = "demo";
static bool colours;
static char colour[8];  // of this speaker; empty: no colours

double elapsed_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start.tv_sec) * 1e3 +
           (double)(now.tv_nsec - start.tv_nsec) / 1e6;
}

void speak_as(const char *how, ...)
{
    va_list list;
    va_start(list, how);
    vsnprintf(speaker, sizeof speaker, how, list);
    va_end(list);
    unsigned sum = 0;
    for (const char *c = speaker; *c; c++) sum = sum * 31 + (unsigned char)*c;
    if (colours) snprintf(colour, sizeof colour, "\033[%um", 31 + sum % 6);
}

void wipe_progress(void)
{
    if (colours) fputs("\r\033[K", stdout);
}

/* One write a line, so that lines of several processes do not mix. */
void say(const char *how, ...)
{
    va_list list;
    va_start(list, how);
    char *text = vformat(how, list);
    va_end(list);
    wipe_progress();
    printf("%9.1f ms  %s%-12s%s %s\n", elapsed_ms(), colour, speaker,
           *colour ? "\033[0m" : "", text);
}

void progress(const char *how, ...)
{
    static double next;
    if (!colours || elapsed_ms() < next) return;
    next = elapsed_ms() + 100;
    va_list list;
    va_start(list, how);
    char *text = vformat(how, list);
    va_end(list);
    wipe_progress();
    printf("%9.1f ms  %s", elapsed_ms(), text);
    fflush(stdout);
}

void headline(const char *text)
{
    wipe_progress();
    printf(colours ? "\n\033[1m%s\033[0m\n" : "\n%s\n", text);
}

/* What the dead have complained of, in memory that all processes of this program share: of each
   complaint a sum of its characters, without digits (a process id, a number of bytes). */
enum { MOST_COMPLAINTS = 64 };
static uint64_t *complaints;  // NULL: there is no such memory

/* Has it been heard before?  Now it has. */
static bool was_heard(const char *complaint)
{
    uint64_t sum = 1469598103934665603u;
    for (const char *c = complaint; *c; c++)
        if (*c < '0' || *c > '9') sum = (sum ^ (unsigned char)*c) * 1099511628211u;
    for (int i = 0; complaints && i < MOST_COMPLAINTS; i++) {
        if (complaints[i] == sum) return true;
        if (complaints[i]) continue;
        complaints[i] = sum;
        return false;
    }
    return false;
}

static bool silent;
void die_silently(void) { silent = true; }
bool speak_again(void)
{
    bool was = silent;
    silent = false;
    return was;
}

static _Noreturn void leave(int status, const char *how, va_list list)
{
    char text[8192];  // not from the arena: it may be memory that we are out of
    vsnprintf(text, sizeof text, how, list);
    wipe_progress();
    fflush(stdout);
    bool heard = was_heard(text);
    if (!silent || !heard) fprintf(stderr, "%s: %s\n", speaker, text);
    exit(status);
}

void die(const char *how, ...)
{
    va_list list;
    va_start(list, how);
    leave(1, how, list);
}

void die_usage(const char *how, ...)
{
    va_list list;
    va_start(list, how);
    leave(2, how, list);
}

/* ---- the command line ---- */

enum { MOST_WORDS = 8 };
static const char *words[MOST_WORDS + 1];
static const char *options[2 * MOST_WORDS + 1];  // name, value, name, value, ...

const char *word(int i) { return i < MOST_WORDS ? words[i] : NULL; }

const char *option(const char *name)
{
    for (int i = 0; options[i]; i += 2)
        if (!strcmp(options[i], name)) return options[i + 1];
    return NULL;
}

static int64_t parse_number(const char *name, const char *text, int64_t least,
                            int64_t most)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || *end || errno || n < least || n > most)
        die_usage("%s takes a whole number from %lld to %lld, not \"%s\"", name,
                  (long long)least, (long long)most, text);
    return n;
}

int64_t word_number(int i, const char *what, int64_t least, int64_t most)
{
    return parse_number(what, word(i), least, most);
}

int64_t option_number(const char *name, int64_t otherwise, int64_t least, int64_t most)
{
    return option(name) ? parse_number(name, option(name), least, most) : otherwise;
}

int env_ms(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? (int)parse_number(name, text, 1, 86400000) : otherwise;
}

const char **read_lines(const char *path, int *count)
{
    FILE *stream = fopen(path, "r");
    if (!stream) die_usage("%s: %s", path, strerror(errno));
    const char **lines = NULL;
    char *line = NULL;
    size_t size = 0;
    *count = 0;
    for (ssize_t length; (length = getline(&line, &size, stream)) > 0; ++*count) {
        if (strlen(line) != (size_t)length)
            die_usage("%s:%d: a NUL byte", path, *count + 1);
        if (!(*count & (*count - 1))) {  // at 0, 1, 2, 4, 8, ... it is full
            const char **larger =
                take(sizeof *larger * (size_t)(*count ? 2 * *count : 1));
            if (*count) memcpy(larger, lines, sizeof *larger * (size_t)*count);
            lines = larger;
        }
        lines[*count] = copy_text(line, (size_t)length);
    }
    if (ferror(stream)) die_usage("%s: %s", path, strerror(errno));
    free(line);
    fclose(stream);
    return lines;
}

void expect(bool came_true, const char *claim)
{
    if (!came_true) die("this did not come true: %s", claim);
}

static bool takes_option(const Command *command, const char *name)
{
    return strstr(command->usage, format("[%s ", name)) != NULL;
}

/* How many words the usage text asks for, or allows: those not behind an option's name. */
static int count_words(const char *usage, bool optional)
{
    int count = 0;
    for (const char *c = usage; *c; c += strcspn(c, " "), c += strspn(c, " ")) {
        if (c[0] == '[' && c[1] == '-') c += strcspn(c, "]");
        else count += c[0] != '[' || optional;
    }
    return count;
}

static void parse_arguments(const Command *command, int argc, char **argv)
{
    int n = 0, o = 0, most = count_words(command->usage, true);
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], "--", 2)) {
            if (n == most)
                die_usage("%s: what is \"%s\"? Usage: %s %s", command->name, argv[i],
                          command->name, command->usage);
            words[n++] = argv[i];
            continue;
        }
        if (!takes_option(command, argv[i]))
            die_usage("%s does not know %s. Usage: %s %s", command->name, argv[i],
                      command->name, command->usage);
        if (option(argv[i])) die_usage("%s is there twice", argv[i]);
        if (i + 1 == argc || !*argv[i + 1]) die_usage("%s needs a value", argv[i]);
        options[o] = argv[i++];
        options[o + 1] = argv[i];
        o += 2;
    }
    if (n < count_words(command->usage, false))
        die_usage("%s needs more. Usage: %s %s", command->name, command->name,
                  command->usage);
}

static void print_help(const char *program, const Command *commands, int count)
{
    for (int i = 0; i < count; i++) {
        char *call = format("%s %s %s", program, commands[i].name, commands[i].usage);
        printf("  %-48s %s\n", call, commands[i].what);
    }
}

/* Lines are written as they end, also into a pipe: a process that dies of SIGKILL has said
   all it said. */
static void start_program(void)
{
    static char line[1 << 16];
    setvbuf(stdout, line, _IOLBF, sizeof line);
    clock_gettime(CLOCK_MONOTONIC, &start);
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    colours = isatty(STDOUT_FILENO) && !(no && *no) && !(term && !strcmp(term, "dumb"));
    use_arena_for_json();
    complaints = mmap(NULL, sizeof *complaints * MOST_COMPLAINTS,
                      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (complaints == MAP_FAILED) complaints = NULL;
}

int run_command(const Command *commands, int count, int argc, char **argv)
{
    start_program();
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "help") || !strcmp(name, "--help")) {
        print_help(argv[0], commands, count);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        const Command *command = &commands[i];
        if (strcmp(command->name, name)) continue;
        snprintf(speaker, sizeof speaker, "%s", *name ? name : "demo");
        parse_arguments(command, argc, argv);
        command->run();
        return 0;
    }
    die_usage("there is no command \"%s\": %s help lists them", name, argv[0]);
}
