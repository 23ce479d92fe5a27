#include "json.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* ---- characters ---- */

/* The length of the valid UTF-8 character at s, which is never read past a NUL; or 0. */
static int utf8_length(const unsigned char *s)
{
    int length = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (s[0] >= 0x80 && (s[0] < 0xC2 || s[0] > 0xF4)) return 0;
    for (int i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xED && s[1] > 0x9F;
    bool too_high = s[0] == 0xF4 && s[1] > 0x8F;
    return overlong || surrogate || too_high ? 0 : length;
}

/* ---- where we are, for the reason ---- */

typedef struct Place {
    const struct Place *up;  // NULL: the whole value
    const char *key;         // NULL: an array's item
    int index;
} Place;

static const Place top;

/* A key as a reason may show it: not too long, and with no byte that Postgres would refuse. */
static char *shown(const char *key)
{
    enum { MOST = 40 };
    char *text = take(4 * MOST + 1), *to = text;
    for (int i = 0; *key && i < MOST; i++) {
        int length = utf8_length((const unsigned char *)key);
        bool fine = length && (unsigned char)*key >= ' ';
        memcpy(to, fine ? key : "?", fine ? (size_t)length : 1);
        to += fine ? length : 1;
        key += fine ? length : 1;
    }
    return text;
}

static char *place_name(const Place *at)
{
    if (!at->up) return format("$");
    char *up = place_name(at->up);
    if (!at->key) return format("%s[%d]", up, at->index);
    bool plain =
        at->key[0] && !at->key[strspn(at->key, "abcdefghijklmnopqrstuvwxyz_"
                                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")];
    return plain ? format("%s.%s", up, shown(at->key))
                 : format("%s[\"%s\"]", up, shown(at->key));
}

/* Returns NULL, so that a function can return what this returns. */
static void *refuse(char **why, const Place *at, const char *how, ...)
{
    va_list list;
    va_start(list, how);
    *why = format("%s: %s", place_name(at), vformat(how, list));
    va_end(list);
    return NULL;
}

/* ---- numbers ---- */

/* The shortest text that reads back as the same double. */
static char *print_number(double x)
{
    if (x == 0) return "0";  // also for -0, of which jsonb makes a 0
    if (x == floor(x) && fabs(x) < 1e15) return format("%.0f", x);
    for (int digits = fabs(x) < DBL_MIN ? 1 : 15;; digits++) {
        char *text = format("%.*g", digits, x);
        if (digits == 17 || strtod(text, NULL) == x) return text;
    }
}

/* "-0.0120e5" is "12" and 2: its digits without the zeros at both ends, and the power of
   ten that the last of them counts. */
static char *decimal(const char *number, long *power)
{
    size_t used = 0, fraction = 0;
    char *digits = take(strlen(number) + 1);
    bool point = false;
    const char *c = number + (*number == '-');
    for (; *c && *c != 'e' && *c != 'E'; c++) {
        if (*c == '.') point = true;
        else if (used || *c != '0') digits[used++] = *c;
        if (*c != '.' && point) fraction++;
    }
    *power = -(long)fraction;
    if (*c) {
        long exponent = strtol(c + 1, NULL, 10);
        *power += exponent > 99999 ? 99999 : exponent < -99999 ? -99999 : exponent;
    }
    for (; used && digits[used - 1] == '0'; ++*power) digits[--used] = 0;
    return digits;
}

static bool same_number(const char *a, const char *b)
{
    long power_a, power_b;
    char *digits_a = decimal(a, &power_a), *digits_b = decimal(b, &power_b);
    return !strcmp(digits_a, digits_b) && (power_a == power_b || !*digits_a);
}

static bool number_fits(double x) { return fabs(x) < 9007199254740992.0; }

/* ---- members in order, which is also how two of one name are found ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

/* The members of an object sorted by name; NULL if two are called the same or one has no name. */
static cJSON **sorted_members(const cJSON *object, const Place *at, char **why)
{
    int count = cJSON_GetArraySize(object), i = 0;
    cJSON **members = take(sizeof *members * (size_t)(count + 1));
    for (cJSON *member = object->child; member; member = member->next) {
        if (!member->string) return refuse(why, at, "a member has no name");
        members[i++] = member;
    }
    qsort(members, (size_t)count, sizeof *members, by_name);
    for (i = 1; i < count; i++)
        if (!strcmp(members[i - 1]->string, members[i]->string))
            return refuse(why, at, "the key \"%s\" is there twice",
                          shown(members[i]->string));
    return members;
}

/* ---- decode ---- */

typedef struct {
    const char *start, *at, *end;
    char **why;
    int depth;
} Reader;

static cJSON *read_value(Reader *r, const Place *at);

static void *unexpected(Reader *r, const Place *at, const char *expected)
{
    size_t offset = (size_t)(r->at - r->start);
    unsigned char c = (unsigned char)*r->at;
    if (r->at == r->end)
        return refuse(r->why, at, "it ends where %s should be", expected);
    const char *found =
        c > ' ' && c < 0x7F ? format("'%c'", c) : format("byte 0x%02x", c);
    return refuse(r->why, at, "%s at offset %zu, where %s should be", found, offset,
                  expected);
}

static void skip_space(Reader *r) { r->at += strspn(r->at, " \t\r\n"); }

static bool accept(Reader *r, char c)
{
    skip_space(r);
    if (*r->at != c) return false;
    r->at++;
    return true;
}

/* Four hex digits, or -1. */
static int hex_at(const char *s)
{
    if (strspn(s, "0123456789abcdefABCDEF") < 4) return -1;
    return (int)strtol((char[]){s[0], s[1], s[2], s[3], 0}, NULL, 16);
}

/* \uXXXX, or a pair of them; r->at stands at the backslash. */
static bool skip_unicode_escape(Reader *r, const Place *at)
{
    int code = hex_at(r->at += 2);
    if (code < 0) return unexpected(r, at, "four hex digits");
    if (code == 0) return refuse(r->why, at, "\\u0000 cannot be stored in Postgres");
    r->at += 4;
    if (code < 0xD800 || code > 0xDFFF) return true;
    int low =
        code < 0xDC00 && r->at[0] == '\\' && r->at[1] == 'u' ? hex_at(r->at + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return refuse(r->why, at, "\\u%04x is half of a surrogate pair",
                      (unsigned)code);
    r->at += 6;
    return true;
}

static bool skip_character(Reader *r, const Place *at)
{
    unsigned char c = (unsigned char)*r->at;
    if (r->at == r->end) return unexpected(r, at, "a closing quote");
    if (c < 0x20) return refuse(r->why, at, "a raw control character (0x%02x)", c);
    if (c == '\\' && r->at[1] == 'u') return skip_unicode_escape(r, at);
    if (c == '\\') {
        r->at++;
        if (!*r->at || !strchr("\"\\/bfnrt", *r->at))
            return unexpected(r, at, "an escape");
        r->at++;
        return true;
    }
    int length = utf8_length((const unsigned char *)r->at);
    if (!length) return refuse(r->why, at, "invalid UTF-8 (byte 0x%02x)", c);
    r->at += length;
    return true;
}

/* r->at stands behind the opening quote.  Checked here, unescaped by cJSON. */
static cJSON *read_string(Reader *r, const Place *at)
{
    const char *quote = r->at - 1;
    while (*r->at != '"')
        if (!skip_character(r, at)) return NULL;
    r->at++;
    return cJSON_ParseWithLength(quote, (size_t)(r->at - quote));
}

static bool skip_digits(Reader *r, const Place *at)
{
    size_t count = strspn(r->at, "0123456789");
    r->at += count;
    return count || unexpected(r, at, "a digit");
}

static bool skip_number(Reader *r, const Place *at)
{
    r->at += *r->at == '-';
    if (r->at[0] == '0' && r->at[1] >= '0' && r->at[1] <= '9')
        return refuse(r->why, at, "a number may not begin with 0");
    if (!skip_digits(r, at)) return false;
    if (*r->at == '.') {
        r->at++;
        if (!skip_digits(r, at)) return false;
    }
    if (*r->at != 'e' && *r->at != 'E') return true;
    r->at++;
    r->at += *r->at == '+' || *r->at == '-';
    return skip_digits(r, at);
}

static cJSON *read_number(Reader *r, const Place *at)
{
    const char *start = r->at;
    if (!skip_number(r, at)) return NULL;
    char *text = copy_text(start, (size_t)(r->at - start));
    double x = strtod(text, NULL);
    if (!number_fits(x))
        return refuse(r->why, at, "%.40s is not within 2^53: pass it as a string",
                      text);
    if (!same_number(text, print_number(x)))
        return refuse(r->why, at, "%.40s would come back as %s: pass it as a string",
                      text, print_number(x));
    return cJSON_CreateNumber(x);
}

static cJSON *read_array(Reader *r, const Place *at)
{
    cJSON *array = cJSON_CreateArray();
    if (accept(r, ']')) return array;
    for (int i = 0;; i++) {
        cJSON *item = read_value(r, &(Place){at, NULL, i});
        if (!item) return NULL;
        cJSON_AddItemToArray(array, item);
        if (accept(r, ']')) return array;
        if (!accept(r, ',')) return unexpected(r, at, "',' or ']'");
    }
}

static cJSON *read_object(Reader *r, const Place *at)
{
    cJSON *object = cJSON_CreateObject();
    if (accept(r, '}')) return object;
    for (;;) {
        if (!accept(r, '"')) return unexpected(r, at, "a key in double quotes");
        cJSON *key = read_string(r, at);
        if (!key) return NULL;
        if (!accept(r, ':')) return unexpected(r, at, "':'");
        cJSON *member = read_value(r, &(Place){at, key->valuestring, 0});
        if (!member) return NULL;
        cJSON_AddItemToObject(object, key->valuestring, member);
        if (accept(r, '}')) return sorted_members(object, at, r->why) ? object : NULL;
        if (!accept(r, ',')) return unexpected(r, at, "',' or '}'");
    }
}

static bool accept_word(Reader *r, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(r->at, word, length)) return false;
    r->at += length;
    return true;
}

static cJSON *read_value(Reader *r, const Place *at)
{
    skip_space(r);
    if (*r->at == '-' || (*r->at >= '0' && *r->at <= '9')) return read_number(r, at);
    if (accept_word(r, "null")) return cJSON_CreateNull();
    if (accept_word(r, "true")) return cJSON_CreateTrue();
    if (accept_word(r, "false")) return cJSON_CreateFalse();
    if (accept(r, '"')) return read_string(r, at);
    if (*r->at != '[' && *r->at != '{') return unexpected(r, at, "a value");
    if (r->depth == JSON_DEPTH)
        return refuse(r->why, at, "more than %d arrays and objects inside each other",
                      JSON_DEPTH);
    r->depth++;
    cJSON *value = *r->at++ == '[' ? read_array(r, at) : read_object(r, at);
    r->depth--;
    return value;
}

/* The limit is encode()'s.  Here there is room for what jsonb makes of a value: a space after
   each comma, and 5e-324 written out. */
cJSON *decode(const char *text, char **why)
{
    size_t length = strlen(text);
    *why = NULL;
    if (length / 64 > JSON_LIMIT)
        return refuse(why, &top, "%zu bytes are too large", length);
    if (!strncmp(text, "\xEF\xBB\xBF", 3))
        return refuse(why, &top, "it begins with a byte order mark");
    Reader r = {.start = text, .at = text, .end = text + length, .why = why};
    cJSON *value = read_value(&r, &top);
    if (value) skip_space(&r);
    return !value || r.at == r.end ? value : unexpected(&r, &top, "the end");
}

/* ---- encode ---- */

typedef struct {
    char *text;
    size_t used, size;
    char **why;
    int depth;
} Writer;

static bool write_value(Writer *w, const cJSON *value, const Place *at);

static bool put(Writer *w, const char *text, size_t length)
{
    if (w->used + length > JSON_LIMIT) {
        *w->why =
            format("$: larger than %d bytes: store it elsewhere and pass a reference",
                   JSON_LIMIT);
        return false;
    }
    if (w->used + length >= w->size) {
        char *smaller = w->text;
        w->size = 2 * (w->used + length) + 64;
        w->text = take(w->size);
        if (smaller) memcpy(w->text, smaller, w->used);
    }
    memcpy(w->text + w->used, text, length);
    w->used += length;
    return true;
}

static bool put_text(Writer *w, const char *text) { return put(w, text, strlen(text)); }

static bool write_string(Writer *w, const char *text, const Place *at)
{
    static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    if (!text) return refuse(w->why, at, "a string without text");
    if (!put(w, "\"", 1)) return false;
    for (const char *c = text; *c;) {
        int length = utf8_length((const unsigned char *)c);
        if (!length)
            return refuse(w->why, at, "invalid UTF-8 (byte 0x%02x)", (unsigned char)*c);
        const char *found = strchr(special, *c);
        char escape[7] = {'\\', found ? letters[found - special] : 0};
        if (!found && (unsigned char)*c < 0x20)
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*c);
        if (!(escape[1] ? put_text(w, escape) : put(w, c, (size_t)length)))
            return false;
        c += length;
    }
    return put(w, "\"", 1);
}

static bool write_array(Writer *w, const cJSON *array, const Place *at)
{
    int i = 0;
    if (!put(w, "[", 1)) return false;
    for (const cJSON *item = array->child; item; item = item->next, i++) {
        if (i && !put(w, ",", 1)) return false;
        if (!write_value(w, item, &(Place){at, NULL, i})) return false;
    }
    return put(w, "]", 1);
}

static bool write_object(Writer *w, const cJSON *object, const Place *at)
{
    cJSON **member = sorted_members(object, at, w->why);
    if (!member || !put(w, "{", 1)) return false;
    for (int i = 0; member[i]; i++) {
        Place here = {at, member[i]->string, 0};
        if (i && !put(w, ",", 1)) return false;
        if (!write_string(w, member[i]->string, &here) || !put(w, ":", 1)) return false;
        if (!write_value(w, member[i], &here)) return false;
    }
    return put(w, "}", 1);
}

static bool write_number(Writer *w, double x, const Place *at)
{
    if (number_fits(x)) return put_text(w, print_number(x));
    return refuse(w->why, at, "%g is not within 2^53: pass it as a string", x);
}

static bool write_nested(Writer *w, const cJSON *value, const Place *at)
{
    if (w->depth == JSON_DEPTH)
        return refuse(w->why, at, "more than %d arrays and objects inside each other",
                      JSON_DEPTH);
    w->depth++;
    bool done =
        cJSON_IsArray(value) ? write_array(w, value, at) : write_object(w, value, at);
    w->depth--;
    return done;
}

static bool write_value(Writer *w, const cJSON *value, const Place *at)
{
    switch (value->type & 0xFF) {
    case cJSON_NULL: return put_text(w, "null");
    case cJSON_True: return put_text(w, "true");
    case cJSON_False: return put_text(w, "false");
    case cJSON_Number: return write_number(w, value->valuedouble, at);
    case cJSON_String: return write_string(w, value->valuestring, at);
    case cJSON_Array:
    case cJSON_Object: return write_nested(w, value, at);
    default:
        return refuse(w->why, at, "not a JSON value (type %d)", value->type & 0xFF);
    }
}

char *encode(const cJSON *value, char **why)
{
    Writer w = {.why = why};
    *why = NULL;
    if (!value) return refuse(why, &top, "no value at all");
    return write_value(&w, value, &top) ? w.text : NULL;
}

/* ---- memory ---- */

static void leave_to_arena(void *memory) { (void)memory; }

void use_arena_for_json(void) { cJSON_InitHooks(&(cJSON_Hooks){take, leave_to_arena}); }

/* ---- around it ---- */

cJSON *decode_file(const char *path, char **why)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = fopen(path, "r");
    bool read = stream && getdelim(&text, &size, 0, stream) > 0;
    if (!read)
        *why = format("%s", stream && feof(stream) ? "it is empty" : strerror(errno));
    cJSON *value = read ? decode(text, why) : NULL;
    free(text);
    if (stream) fclose(stream);
    return value;
}

int number_in(const cJSON *object, const char *key)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(n) ? n->valueint : 0;
}

const char *text_in(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}
