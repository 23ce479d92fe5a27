/* sql.h: SQL files, read so that an error can point at its place.

   queries.sql holds named statements in sqlc's dialect:

       -- name: ClaimTask :one
       select id from task where queue = @queue;

   The kind says what comes back: ":one" row or none, ":many" rows, or ":exec", the number of
   rows changed.  Postgres knows parameters as $1, $2, ...; each @name becomes the next
   number, and the same name the same number.  A statement remembers where in the file each
   of its characters stood, because Postgres reports the place of an error as a count of
   characters in the text that it got. */

#ifndef SQL_H
#define SQL_H

#include <stdbool.h>

typedef struct {
    const char *path, *text;
} SqlFile;

enum { MOST_PARAMETERS = 32 };

typedef struct Statement {
    const SqlFile *file;
    int start;          // byte offset in the file; -1: unknown
    const char *name;   // NULL in schema.sql
    const char *kind;   // "one", "many" or "exec"
    const char *sql;    // what Postgres gets, with $1 for @queue
    const int *origin;  // of each character of sql: its byte offset in the file
    int parameters;
    const char *parameter[MOST_PARAMETERS];
    struct Statement *next;
} Statement;

SqlFile *read_sql_file(const char *path);
Statement *named_statements(const SqlFile *file);   // queries.sql
Statement *whole_file(const SqlFile *file);         // schema.sql
Statement *nth_statement(Statement *whole, int n);  // with its start, from 0

char *sql_place(const SqlFile *file, int offset);  // "queries.sql:12:45"

/* queries.sql:12:45: ClaimTask: column "run_att" does not exist
       set run_att = run_att + 1
                     ^
   `character` is Postgres's position in sql, counted from 1; 0 means the statement's start.
   `more` is printed below. */
_Noreturn void die_at(const Statement *statement, int character, const char *what,
                      const char *more);

#endif
