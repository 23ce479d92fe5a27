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
    if (getdelim(&text, &size, 0, stream) < 0) text = strdup("");
    if (!feof(stream)) die("%s: it has a NUL byte, or cannot be read", path);
    fclose(stream);
    SqlFile *file = take(sizeof *file);
    *file = (SqlFile){path, copy_text(text, strlen(text))};
    free(text);
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

static _Noreturn void die_in_file(const SqlFile *file, int offset, const char *what,
                                  const char *more)
{
    int from = line_start(file->text, offset);
    char *below = take((size_t)(offset - from) + 1), *to = below;
    for (int i = from; i < offset; i++)
        if (begins_character(file->text[i])) *to++ = file->text[i] == '\t' ? '\t' : ' ';
    die("%s: %s\n    %.*s\n    %s^%s", sql_place(file, offset), what,
        (int)strcspn(file->text + from, "\n"), file->text + from, below, more);
}

void die_at(const Statement *s, int character, const char *what, const char *more)
{
    int offset = character > 0 ? s->origin[character - 1] : s->start;
    die_in_file(s->file, offset, s->name ? format("%s: %s", s->name, what) : what,
                more);
}

/* ---- tokens: as much of SQL's grammar as it takes to know what is not ours to touch ---- */

typedef enum { SPACE, WORD, STRING, PARAMETER, NUMBERED, SEMICOLON, OTHER } Token;

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
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

/* $$ ... $$ or $body$ ... $body$; NULL if this dollar sign begins no such thing. */
static const char *end_of_dollar_quotes(const char *c)
{
    const char *tag_end = c + 1;
    while (word_char(*tag_end)) tag_end++;
    if (*tag_end != '$' || isdigit((unsigned char)c[1])) return NULL;
    char *tag = copy_text(c, (size_t)(tag_end + 1 - c));
    const char *close = strstr(tag_end + 1, tag);
    return close ? close + strlen(tag) : c + strlen(c);
}

/* `before` is the character in front of c: "<@" and "@@" are operators, "=@id" is not. */
static const char *next_token(const char *c, char before, Token *token)
{
    const char *end;
    if (isspace((unsigned char)*c)) return *token = SPACE, c + 1;
    if (!strncmp(c, "--", 2)) return *token = SPACE, c + strcspn(c, "\n");
    if (!strncmp(c, "/*", 2)) return *token = SPACE, end_of_block_comment(c);
    if (strchr("eE", *c) && c[1] == '\'')
        return *token = STRING, end_of_quotes(c + 1, true);
    if (strchr("'\"", *c)) return *token = STRING, end_of_quotes(c, false);
    if (*c == '$' && (end = end_of_dollar_quotes(c))) return *token = STRING, end;
    *token = *c == ';' ? SEMICOLON : OTHER;
    if (*c == '$' && isdigit((unsigned char)c[1])) *token = NUMBERED;
    if (*c == '@' && word_char(c[1]) && !isdigit((unsigned char)c[1]) &&
        !strchr("<>@!|&#~?*", before))
        *token = PARAMETER;
    else if (word_char(*c)) *token = WORD;
    else return c + 1;
    do c++;
    while (word_char(*c) || (*token == WORD && *c == '$'));
    return c;
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
static int read_statement(Statement *s, int from, int to, bool stop_at_semicolon)
{
    const char *text = s->file->text, *c = text + from, *end;
    char *sql = take((size_t)(to - from) * 2 + 1), *out = sql;
    int *origin = take(sizeof *origin * ((size_t)(to - from) * 2 + 1)), characters = 0;
    bool stop = false;
    for (; c < text + to && !stop; c = end) {
        Token token;
        end = next_token(c, c > text ? c[-1] : ' ', &token);
        if (end > text + to) end = text + to;
        if (token == NUMBERED)
            die_in_file(s->file, (int)(c - text),
                        "write parameters as @name, not as $1", "");
        const char *piece = copy_text(c, (size_t)(end - c));
        if (token == PARAMETER)
            piece = format("$%d", parameter_number(s, piece + 1, (int)(c - text)));
        for (const char *p = piece; *p; p++) {
            if (begins_character(*p))
                origin[characters++] =
                    (int)(c - text) + (token == PARAMETER ? 0 : (int)(p - piece));
            *out++ = *p;
        }
        stop = token == SEMICOLON && stop_at_semicolon;
    }
    origin[characters] = (int)(c - text);
    s->sql = sql;
    s->origin = origin;
    return (int)(c - text);
}

/* The offset of the first thing in the text that is neither space nor comment. */
static int skip_space(const SqlFile *file, int from, int to)
{
    for (const char *c = file->text + from; c < file->text + to;) {
        Token token;
        const char *end = next_token(c, ' ', &token);
        if (token != SPACE) return (int)(c - file->text);
        c = end;
    }
    return to;
}

Statement *plain_statements(const SqlFile *file)
{
    Statement *first = NULL, **last = &first;
    int end = (int)strlen(file->text);
    for (int at = skip_space(file, 0, end); at < end; at = skip_space(file, at, end)) {
        Statement *s = *last = take(sizeof *s);
        *s = (Statement){.file = file, .start = at};
        at = read_statement(s, at, end, true);
        last = &s->next;
    }
    return first;
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
    read_statement(s, body, end, false);
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
