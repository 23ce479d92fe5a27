/* memory.h: one arena per process, and one rule.

   What you are handed lives until the process has taken its next task; nobody frees. A
   process that runs many tasks calls forget_memory() once a task: it frees all but what was
   taken since the last call, so one task's results are still there while the next arrives.
   cJSON allocates here, too: cJSON_Delete() does no harm and is not needed. */

#ifndef MEMORY_H
#define MEMORY_H

#include <stdarg.h>
#include <stddef.h>

void *take(size_t size);  // zeroed; never NULL
char *format(const char *how, ...) __attribute__((format(printf, 1, 2)));
char *vformat(const char *how, va_list list) __attribute__((format(printf, 1, 0)));
char *copy_text(const char *text, size_t length);
char *first_line(const char *text);
char *excerpt(const char *text, size_t from, size_t most);  // never half a character

void keep_memory(void);    // what was taken so far stays for good
void forget_memory(void);  // what was taken before the last call is gone

#endif
