/* db.h: a connection, and statements by name.

       Row *task = one(db, "ClaimTask", Text("queue", queue));
       if (task) say("claimed %s", get_text(task, "name"));
       for (Row *row = many(db, "ListTasks"); row; row = row->next) ...
       int changed = exec(db, "CompleteTask", Int("id", id), Json("output", output));

       also(db, "CompleteTask", Int("id", id), Json("output", output));  // with the next one:
       Row *next = one(db, "ClaimTask", Text("queue", queue));  // one message, one transaction
       changed = also_changed(db);

   The statements are those of queries.sql in the folder where the program was started.  All
   are prepared and described when the first connection opens, so a mistake in one shows at
   once.  Arguments are bound by name and rows are read by column name.  Where a name or a
   type does not fit, the program dies and says the place in C and the place in queries.sql.

   A Row is a copy in the arena (memory.h): no result of libpq outlives a call.  If the
   connection is lost the process dies.  That is no lack of manners: everything in this guide
   has to survive the death of a process anyway, so there is one way to fail and not two. */

#ifndef DB_H
#define DB_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "sql.h"

typedef struct Db Db;

/* At $DATABASE_URL.  A program opens a connection before it forks, if only to close it again:
   that checks every statement, once for itself and for all its children. */
Db *open_db(const char *schema);     // the tables must be there
Db *fresh_db(const char *schema);    // drops the schema, makes it anew from schema.sql
Db *connect_db(const char *schema);  // without statements
void close_db(Db *db);
void leave_db(Db *db);       // in a forked child: drops its copy of the socket
void prepare_all(Db *db);    // so that SQL can say: execute claimtask('default')
PGconn *connection(Db *db);  // for plain libpq

/* ---- statements ---- */

typedef struct {
    char type;                 // 't'ext, 'i'nteger, 'j'son
    const char *name, *value;  // NULL is null, of whatever type
} Arg;

Arg Int(const char *name, int64_t value);       // any size of integer
Arg Json(const char *name, const char *value);  // json or jsonb: what encode() returned
Arg Text(const char *name,
         const char *value);  // all else, as text: a uuid, '{1,2}', ...

typedef struct Row {
    struct Row *next;
    const struct Prepared *from;
    const char *value[];  // in the order of the columns; NULL is null
} Row;

#define HERE __FILE__ ":" HERE_LINE(__LINE__)
#define HERE_LINE(line) HERE_TEXT(line)
#define HERE_TEXT(line) #line
#define ARGS(...) ((const Arg[]){__VA_ARGS__ __VA_OPT__(, ){0}})

#define one(db, name, ...) run_one(HERE, db, name, ARGS(__VA_ARGS__))  // NULL: no row
#define many(db, name, ...) run_many(HERE, db, name, ARGS(__VA_ARGS__))
#define exec(db, name, ...) run_exec(HERE, db, name, ARGS(__VA_ARGS__))  // rows changed
/* Waits for the next statement. */
#define also(db, name, ...) run_also(HERE, db, name, ARGS(__VA_ARGS__))
#define get_text(row, column) read_text(HERE, row, column, 't')
#define get_json(row, column) read_text(HERE, row, column, 'j')  // for decode()
#define get_int(row, column) read_int(HERE, row, column)

Row *run_one(const char *here, Db *db, const char *name, const Arg *args);
Row *run_many(const char *here, Db *db, const char *name, const Arg *args);
int run_exec(const char *here, Db *db, const char *name, const Arg *args);
void run_also(const char *here, Db *db, const char *name, const Arg *args);
int also_changed(Db *db);  // rows; if nothing has come after it, it is sent now
const char *read_text(const char *here, const Row *row, const char *column, char type);
int64_t read_int(const char *here, const Row *row, const char *column);

void print_rows(const Row *rows);  // as a table
void print_row(const Row *row);    // a line a column, without those that are null

/* ---- crash points ----

   CRASH_AT=17 in the environment kills the process with SIGKILL before its 17th statement,
   17:after when the statement is done, and 17:lost cuts the connection when it is done, so
   that its answer never arrives.  17:freeze stops it with SIGSTOP before the statement, until
   somebody sends SIGCONT.  Connecting and preparing do not count.  A process obeys
   only after arm_crash(), which says who it is: CRASH_AT=lookout:5 is meant for "lookout",
   CRASH_AT=5 for "". */
void arm_crash(const char *who);

#endif
