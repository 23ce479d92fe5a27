/* json.h: JSON that does not lie.

   cJSON is our tree of values, and its own reader and printer lose things without a word:
   they cut "x\u0000y" to "x", read 9007199254740993 as 9007199254740992, print
   0.30000000000000004 as 0.3 and let invalid UTF-8 through.  A durable engine compares what
   it stored with what it sees now, so it cannot live with that.

   decode() and encode() refuse what would not come back the same, with a reason that names
   the place: "$.items[3].price: 1e999 is not within 2^53".  What encode() writes is
   canonical (sorted keys, no spaces, shortest numbers): equal values have equal bytes.
   decode(encode(x)) is x, and Postgres takes whatever encode() returns. */

#ifndef JSON_H
#define JSON_H

#include <cjson/cJSON.h>

#ifndef JSON_LIMIT
#define JSON_LIMIT (1024 * 1024)  // bytes of a value as encode() writes it
#endif
enum { JSON_DEPTH = 100 };  // arrays and objects inside each other

void use_arena_for_json(void);  // once, when the program starts: see memory.h

/* Both return NULL and set *why when they refuse. */
cJSON *decode(const char *text, char **why);
char *encode(const cJSON *value, char **why);
cJSON *decode_file(const char *path, char **why);

/* A member of an object: 0 or NULL if there is none, or of another type. */
int number_in(const cJSON *object, const char *key);
const char *text_in(const cJSON *object, const char *key);

#endif
