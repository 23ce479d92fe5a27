/* cli.h: what every program here does at the terminal: it speaks in lines that say when and
   who, dies with a reason, and takes commands and options.

   A lesson's commands are a table.  The usage text of a row is also its grammar: a word in
   capitals is one that must be given, in brackets one that may be, and "[--slots N]" is an
   option with a value.  Anything else on the command line is an error that says so, exit 2. */

#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdint.h>

/* "     12.3 ms  slot 2       took task 7": milliseconds since the program started, who, what. */
void say(const char *how, ...) __attribute__((format(printf, 1, 2)));
void speak_as(const char *how, ...) __attribute__((format(printf, 1, 2)));
void headline(const char *text);

/* On a terminal with colours: a line that the next one replaces.  Elsewhere: nothing. */
void progress(const char *how, ...) __attribute__((format(printf, 1, 2)));
void wipe_progress(void);
double elapsed_ms(void);

/* A broken program, bad SQL, a lost connection: die().  A wrong command line: die_usage(). */
_Noreturn void die(const char *how, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die_usage(const char *how, ...) __attribute__((format(printf, 1, 2)));

/* For whoever comes after a dead process and may die of the same: what one of this program's
   processes has complained of, it does not repeat.  speak_again() says whether that was so. */
void die_silently(void);
bool speak_again(void);

typedef struct {
    const char *name;   // "": what runs when no command is given
    const char *usage;  // "NAME [JSON] [--queue Q]"
    void (*run)(void);
    const char *what;
} Command;

int run_command(const Command *commands, int count, int argc, char **argv);
const char *word(int i);  // of the command line, or NULL
int64_t word_number(int i, const char *what, int64_t least, int64_t most);
const char *option(const char *name);  // "--queue", or NULL
int64_t option_number(const char *name, int64_t otherwise, int64_t least, int64_t most);
int env_ms(const char *name, int otherwise);
const char **read_lines(const char *path, int *count);  // of a file named there

/* What a demo claims.  It dies if that is not so. */
void expect(bool came_true, const char *claim);

#endif
