#include "sql.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "memory.h"

SqlFile *read_sql_file(const char *path)
{
    FILE *stream = fopen(path, "r");
    if (!stream)
        die("%s: %s (start the program in its lesson's folder)", path, strerror(errno));
    char *text = NULL;
    size_t size = 0;
    ssize_t length = getdelim(&text, &size, 0, stream);
    if (!feof(stream)) die("%s: it has a NUL byte, or cannot be read", path);
    fclose(stream);
    SqlFile *file = take(sizeof *file);
    *file = (SqlFile){path, copy_text(text, length < 0 ? 0 : (size_t)length)};
    free(text);
    if (!strncmp(file->text, "\xEF\xBB\xBF", 3))
        die("%s: it begins with a byte order mark: save it without", path);
    return file;
}

/* ---- places ---- */

/* Bytes of UTF-8 that continue a character are not counted. */
static bool begins_character(char c) { return ((unsigned char)c & 0xC0) != 0x80; }

static int line_start(const char *text, int offset)
{
    while (offset > 0 && text[offset - 1] != '\n') offset--;
    return offset;
}

char *sql_place(const SqlFile *file, int offset)
{
    int line = 1, column = 1;
    for (int i = 0; i < offset; i++) {
        if (file->text[i] == '\n') line++, column = 1;
        else if (begins_character(file->text[i + 1])) column++;
    }
    return format("%s:%d:%d", file->path, line, column);
}

/* Of a very long line, only what stands around the place. */
static _Noreturn void die_in_file(const SqlFile *file, int offset, const char *what,
                                  const char *more)
{
    enum { BEFORE = 100, AFTER = 100 };
    int from = line_start(file->text, offset);
    if (offset - from > BEFORE) from = offset - BEFORE;
    int to = from + (int)strcspn(file->text + from, "\r\n");
    if (to - offset > AFTER) to = offset + AFTER;
    char *below = take((size_t)(offset - from) + 1), *end = below;
    for (int i = from; i < offset; i++)
        if (begins_character(file->text[i]))
            *end++ = file->text[i] == '\t' ? '\t' : ' ';
    die("%s: %s\n    %.*s\n    %s^%s", sql_place(file, offset), what, to - from,
        file->text + from, below, more);
}

void die_at(const Statement *s, int character, const char *what, const char *more)
{
    if (!character && s->start < 0) die("%s: %s%s", s->file->path, what, more);
    int offset = character > 0 ? s->origin[character - 1] : s->start;
    die_in_file(s->file, offset, s->name ? format("%s: %s", s->name, what) : what,
                more);
}

/* ---- tokens: as much of SQL's grammar as it takes to know what is not ours to touch ---- */

typedef struct {
    enum { SPACE, PARAMETER, NUMBERED, OTHER } kind;
    const char *end;
} Token;

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

static const char *end_of_word(const char *c)
{
    while (word_char(*c)) c++;
    return c;
}

/* In SQL a$1 is one name. */
static const char *end_of_name(const char *c)
{
    while (word_char(*c) || *c == '$') c++;
    return c;
}

static const char *end_of_block_comment(const char *c)
{
    int depth = 0;
    do {
        int step = !strncmp(c, "/*", 2) ? 1 : !strncmp(c, "*/", 2) ? -1 : 0;
        depth += step;
        c += step ? 2 : 1;
    } while (depth && *c);
    return c;
}

static const char *end_of_quotes(const char *c, bool backslashes)
{
    char quote = *c++;
    for (; *c; c++) {
        if (backslashes && *c == '\\' && c[1]) c++;
        else if (*c == quote && c[1] == quote) c++;
        else if (*c == quote) return c + 1;
    }
    return c;
}

/* $$ ... $$ or $body$ ... $body$; or a dollar sign by itself. */
static const char *end_of_dollar_quotes(const char *c)
{
    const char *tag_end = end_of_word(c + 1);
    if (*tag_end != '$') return c + 1;
    char *tag = copy_text(c, (size_t)(tag_end + 1 - c));
    const char *close = strstr(tag_end + 1, tag);
    return close ? close + strlen(tag) : c + strlen(c);
}

/* `before` is the character in front of c: "<@" and "@@" are operators, "=@id" is not. */
static bool begins_parameter(const char *c, char before)
{
    return *c == '@' && word_char(c[1]) && !isdigit((unsigned char)c[1]) &&
           !strchr("<>@!|&#~?*", before);
}

static Token next_token(const char *c, char before)
{
    if (isspace((unsigned char)*c)) return (Token){SPACE, c + 1};
    if (!strncmp(c, "--", 2)) return (Token){SPACE, c + strcspn(c, "\r\n")};
    if (!strncmp(c, "/*", 2)) return (Token){SPACE, end_of_block_comment(c)};
    if ((*c == 'e' || *c == 'E') && c[1] == '\'')
        return (Token){OTHER, end_of_quotes(c + 1, true)};
    if (*c == '\'' || *c == '"') return (Token){OTHER, end_of_quotes(c, false)};
    if (begins_parameter(c, before)) return (Token){PARAMETER, end_of_word(c + 1)};
    if (word_char(*c)) return (Token){OTHER, end_of_name(c)};
    if (*c != '$') return (Token){OTHER, c + 1};
    if (isdigit((unsigned char)c[1])) return (Token){NUMBERED, end_of_word(c + 1)};
    return (Token){OTHER, end_of_dollar_quotes(c)};
}

/* ---- statements ---- */

static int parameter_number(Statement *s, const char *name, int offset)
{
    for (int i = 0; i < s->parameters; i++)
        if (!strcmp(s->parameter[i], name)) return i + 1;
    if (s->parameters == MOST_PARAMETERS)
        die_in_file(s->file, offset, format("more than %d parameters", MOST_PARAMETERS),
                    "");
    s->parameter[s->parameters++] = name;
    return s->parameters;
}

/* Fills in sql, origin and parameters from the file's text between the two offsets; stops
   behind the first ';' where asked to.  Returns the offset where it stopped. */
static void read_statement(Statement *s, int from, int to)
{
    const char *text = s->file->text, *c = text + from, *end;
    char *sql = take((size_t)(to - from) * 2 + 1), *out = sql;
    int *origin = take(sizeof *origin * ((size_t)(to - from) * 2 + 1)), characters = 0;
    for (; c < text + to; c = end) {
        Token token = next_token(c, c > text ? c[-1] : ' ');
        end = token.end < text + to ? token.end : text + to;
        if (token.kind == NUMBERED)
            die_in_file(s->file, (int)(c - text),
                        "write parameters as @name, not as $1", "");
        const char *piece = copy_text(c, (size_t)(end - c));
        if (token.kind == PARAMETER)
            piece = format("$%d", parameter_number(s, piece + 1, (int)(c - text)));
        for (const char *p = piece; *p; p++) {
            if (begins_character(*p))
                origin[characters++] =
                    (int)(c - text) + (token.kind == PARAMETER ? 0 : (int)(p - piece));
            *out++ = *p;
        }
    }
    origin[characters] = (int)(c - text);
    s->sql = sql;
    s->origin = origin;
}

/* The offset of the first thing in the text that is neither space nor comment. */
static int skip_space(const SqlFile *file, int from, int to)
{
    for (const char *c = file->text + from; c < file->text + to;) {
        Token token = next_token(c, ' ');
        if (token.kind != SPACE) return (int)(c - file->text);
        c = token.end;
    }
    return to;
}

/* Where the n-th statement begins, for an error without a place; -1: who knows.  (The body of a
   function can be "begin atomic", with statements and their semicolons inside.) */
static int start_of(const SqlFile *file, int n)
{
    bool inside = false;
    for (const char *c = file->text, *end; *c; c = end) {
        Token token = next_token(c, ' ');
        end = token.end;
        if (token.kind == SPACE) continue;
        if (end - c == 6 && !strncasecmp(c, "atomic", 6)) return -1;
        if (*c == ';') inside = false;
        else if (!inside && n-- == 0) return (int)(c - file->text);
        else inside = true;
    }
    return -1;
}

Statement *whole_file(const SqlFile *file)
{
    int *origin = take(sizeof *origin * (strlen(file->text) + 1)), characters = 0;
    for (int i = 0; file->text[i]; i++)
        if (begins_character(file->text[i])) origin[characters++] = i;
    Statement *s = take(sizeof *s);
    *s = (Statement){.file = file, .start = -1, .sql = file->text, .origin = origin};
    return s;
}

Statement *nth_statement(Statement *whole, int n)
{
    whole->start = start_of(whole->file, n);
    return whole;
}

static bool is_kind(const char *text)
{
    return !strcmp(text, ":one") || !strcmp(text, ":many") || !strcmp(text, ":exec");
}

/* Is this line "-- name: ClaimTask :one"?  A comment that begins with "name" and has a colon
   wants to be, so it has to be right. */
static bool read_name(const SqlFile *file, int line, Statement *s)
{
    char *text = copy_text(file->text + line, strcspn(file->text + line, "\n"));
    if (strncmp(text, "--", 2)) return false;
    const char *comment = text + 2 + strspn(text + 2, " \t");
    if (strncmp(comment, "name", 4) || word_char(comment[4]) || !strchr(comment, ':'))
        return false;
    char *part[5], *rest;
    int n = 0;
    for (char *p = strtok_r(text, " \t\r", &rest); p && n < 5;
         p = strtok_r(NULL, " \t\r", &rest))
        part[n++] = p;
    if (n != 4 || strcmp(part[1], "name:") || !is_kind(part[3]))
        die_in_file(file, line,
                    "expected \"-- name: SomeName :one\" (or :many, or :exec)", "");
    *s = (Statement){.file = file,
                     .start = line + (int)(part[2] - text),
                     .name = part[2],
                     .kind = part[3] + 1};
    for (const char *c = s->name; *c; c++)
        if (!word_char(*c))
            die_in_file(file, s->start, "a name is made of letters, digits and _", "");
    return true;
}

static int next_line(const char *text, int offset)
{
    offset += (int)strcspn(text + offset, "\n");
    return offset + (text[offset] == '\n');
}

static void add_statement(Statement *s, int body, int end, Statement ***last)
{
    if (skip_space(s->file, body, end) == end)
        die_at(s, 0, "there is no statement under this name", "");
    read_statement(s, body, end);
    Statement *new = take(sizeof *new);
    *new = *s;
    **last = new;
    *last = &new->next;
}

Statement *named_statements(const SqlFile *file)
{
    Statement *first = NULL, **last = &first, current = {0}, next;
    const char *text = file->text;
    int body = 0, end = (int)strlen(text);
    for (int line = 0; line <= end; line = next_line(text, line)) {
        bool at_end = !text[line];
        if (!at_end && !read_name(file, line, &next)) continue;
        if (current.name) add_statement(&current, body, line, &last);
        else if (skip_space(file, 0, line) < line)
            die_in_file(
                file, skip_space(file, 0, line),
                "expected \"-- name: SomeName :one\" before the first statement", "");
        if (at_end) break;
        for (Statement *s = first; s; s = s->next)
            if (!strcasecmp(s->name, next.name))
                die_in_file(file, next.start,
                            format("the name %s is taken by %s", next.name,
                                   sql_place(file, s->start)),
                            "");
        current = next;
        body = next_line(text, line);
    }
    return first;
}
