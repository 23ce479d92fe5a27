/* json_test: what decode() and encode() take, refuse and write.  Prints what is wrong and how
   many checks were made; exits 1 if one failed.

   json_test accepts   prints every text that must be taken, as encode() writes it, one a
                       line: the suite asks Postgres whether it takes them, too.
   json_test corpus    prints every text, whether it must be taken, and as what or why not,
                       each with a NUL behind it: the suite submits them as a task's input. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"
#include "../memory.h"

static int checks, failures;

static void check(int right, const char *what, const char *got, const char *wanted)
{
    checks++;
    if (right) return;
    failures++;
    printf("%.80s\n    gave   %s\n    wanted %s\n", what, got, wanted);
}

/* ---- decode, then encode ---- */

static const struct {
    const char *text, *canonical;
} good[] = {
    {"null", "null"},
    {" \t\r\n true ", "true"},
    {"[]", "[]"},
    {"{}", "{}"},
    {"[1,2,[3]]", "[1,2,[3]]"},
    {"{\"b\": 1, \"a\": {\"d\": 2, \"c\": 3}}", "{\"a\":{\"c\":3,\"d\":2},\"b\":1}"},
    {"\"\"", "\"\""},
    {"\"\\u00e9 \\ud83d\\ude00 \\/ \\b\\f\\n\\r\\t \\\" \\\\ \\u0001\"",
     "\"\303\251 \360\237\230\200 / \\b\\f\\n\\r\\t \\\" \\\\ \\u0001\""},
    {"\"\xEF\xBB\xBF inside is no mark\"", "\"\xEF\xBB\xBF inside is no mark\""},
    {"\"\x7F \xEF\xBF\xBF\"", "\"\x7F \xEF\xBF\xBF\""},
    {"0", "0"},
    {"-0", "0"},
    {"-0.0", "0"},
    {"0.1", "0.1"},
    {"0.30000000000000004", "0.30000000000000004"},
    {"3.0000000000000004e-1", "0.30000000000000004"},
    {"1.50", "1.5"},
    {"1E3", "1000"},
    {"120e-1", "12"},
    {"0e999999999999999999999", "0"},
    {"9007199254740991", "9007199254740991"},
    {"-9007199254740991.0", "-9007199254740991"},
    {"0.00000000012345678901234568", "1.2345678901234568e-10"},
    {"1e-300", "1e-300"},
    {"5e-324", "5e-324"},
    {"2.2250738585072014e-308", "2.2250738585072014e-308"},
    {"1.0000000000000000000000000000000000000000000000000000000000000000000000000",
     "1"},
};

static const struct {
    const char *text, *why;
} bad[] = {
    {"", "$: it ends where a value should be"},
    {"   ", "$: it ends where a value should be"},
    {"nul", "$: 'n' at offset 0, where a value should be"},
    {"NaN", "where a value should be"},
    {"'a'", "where a value should be"},
    {"{\"a\":1}}", "$: '}' at offset 7, where the end should be"},
    {"1 2", "where the end should be"},
    {"[1,]", "$[1]: ']' at offset 3, where a value should be"},
    {"[1 2]", "$: '2' at offset 3, where ',' or ']' should be"},
    {"[1", "$: it ends where ',' or ']' should be"},
    {"{\"a\"}", "where ':' should be"},
    {"{\"a\":1,}", "where a key in double quotes should be"},
    {"{a:1}", "where a key in double quotes should be"},
    {"{\"a\":1 \"b\":2}", "where ',' or '}' should be"},
    {"\"abc", "$: it ends where a closing quote should be"},
    {"\"abc\\", "$: it ends where an escape should be"},
    {"\"a\\x\"", "where an escape should be"},
    {"\"\\u12\"", "where four hex digits should be"},
    {"\"\\u00", "where four hex digits should be"},
    {"{\"items\":[0,1,2,{\"price\":1e999}]}",
     "$.items[3].price: 1e999 is not within 2^53"},
    {"{\"a b\":[\"\\u0000\"]}", "$[\"a b\"][0]: \\u0000 cannot be stored in Postgres"},
    {"{\"\\u0000\":1}", "\\u0000 cannot be stored in Postgres"},
    {"\"\\ud83d\"", "$: \\ud83d is half of a surrogate pair"},
    {"\"\\ud83d\\u0041\"", "half of a surrogate pair"},
    {"\"\\ude00\"", "half of a surrogate pair"},
    {"\"\\ud83d\\ud83d\"", "half of a surrogate pair"},
    {"\"\xC3\"", "invalid UTF-8 (byte 0xc3)"},
    {"\"\xC0\x80\"", "invalid UTF-8"},
    {"\"\xED\xA0\x80\"", "invalid UTF-8"},
    {"\"\xE0\x80\x80\"", "invalid UTF-8"},
    {"\"\xF0\x80\x80\x80\"", "invalid UTF-8"},
    {"\"\xF4\x90\x80\x80\"", "invalid UTF-8"},
    {"\"\xFF\"", "invalid UTF-8"},
    {"\"a\tb\"", "a raw control character (0x09)"},
    {"\"a\nb\"", "a raw control character (0x0a)"},
    {"\xEF\xBB\xBF{}", "$: it begins with a byte order mark"},
    {"01", "$: a number may not begin with 0"},
    {"-01", "may not begin with 0"},
    {"+1", "where a value should be"},
    {".5", "where a value should be"},
    {"1.", "where a digit should be"},
    {"1.e1", "where a digit should be"},
    {"1e", "where a digit should be"},
    {"1e+", "where a digit should be"},
    {"-", "where a digit should be"},
    {"0x10", "where the end should be"},
    {"9007199254740992", "not within 2^53"},
    {"9007199254740993", "not within 2^53"},
    {"-9007199254740993", "not within 2^53"},
    {"18446744073709551616", "not within 2^53"},
    {"1e16", "not within 2^53"},
    {"1000000000000000000000000000000000000000000000000000000000000000000000000000",
     "not within 2^53"},
    {"1e400", "not within 2^53"},
    {"1e99999999999999999999", "not within 2^53"},
    {"1e-400", "1e-400 would come back as 0"},
    {"1e-99999999999999999999", "would come back as 0"},
    {"0.10000000000000001", "would come back as 0.1: pass it as a string"},
    {"0.1234567890123456789", "would come back as"},
    {"9007199254740991.4", "would come back as 9007199254740991"},
    {"{\"a\":1,\"b\":2,\"a\":3}", "$: the key \"a\" is there twice"},
    {"[{\"\\u0061\":1,\"a\":2}]", "$[0]: the key \"a\" is there twice"},
};

static char *nested(int depth)
{
    char *text = take((size_t)depth * 2 + 1);
    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    return text;
}

static void check_texts(void)
{
    char *why = NULL;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cJSON *value = decode(good[i].text, &why);
        char *text = value ? encode(value, &why) : NULL;
        check(text && !strcmp(text, good[i].canonical), good[i].text, text ? text : why,
              good[i].canonical);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cJSON *value = decode(bad[i].text, &why);
        check(!value && strstr(why, bad[i].why), bad[i].text, value ? "a value" : why,
              bad[i].why);
    }
    check(decode(nested(JSON_DEPTH), &why) != NULL, "as deep as it goes", why, "");
    check(!decode(nested(JSON_DEPTH + 1), &why), "too deep", "a value", why);
}

/* ---- encode ---- */

static void check_refused(cJSON *value, const char *expected)
{
    char *why;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToObject(object, "x", value);
    char *text = encode(object, &why);
    check(!text && strstr(why, expected), expected, text ? text : why, expected);
}

static void check_values(void)
{
    char *why = NULL;
    check(!encode(NULL, &why), "NULL", "a text", why);
    check_refused(cJSON_CreateNumber(NAN), "$.x: nan is not within 2^53");
    check_refused(cJSON_CreateNumber(INFINITY), "$.x: inf is not within 2^53");
    check_refused(cJSON_CreateNumber(1e16), "not within 2^53");
    check_refused(cJSON_CreateString("\xC3("), "$.x: invalid UTF-8");
    check_refused(cJSON_CreateRaw("[1"), "$.x: not a JSON value");
    check_refused(cJSON_CreateStringReference(NULL), "$.x: a string without text");

    cJSON *twice = cJSON_CreateObject();
    cJSON_AddNumberToObject(twice, "k", 1);
    cJSON_AddNumberToObject(twice, "k", 2);
    check_refused(twice, "$.x: the key \"k\" is there twice");
    cJSON *nameless = cJSON_CreateObject();
    cJSON_AddItemToArray(nameless, cJSON_CreateNull());
    check_refused(nameless, "$.x: a member has no name");
    cJSON *key = cJSON_CreateObject();
    cJSON_AddNumberToObject(key, "\xFF", 1);
    check_refused(key, "$.x[\"?\"]: invalid UTF-8");

    cJSON *deep = cJSON_CreateArray();
    for (int i = 1; i < JSON_DEPTH; i++) {
        cJSON *outer = cJSON_CreateArray();
        cJSON_AddItemToArray(outer, deep);
        deep = outer;
    }
    check(encode(deep, &why) != NULL, "as deep as it goes", why, "");
    check_refused(deep, "inside each other");

    char *large = take(JSON_LIMIT + 1);
    memset(large, 'a', JSON_LIMIT);
    check_refused(cJSON_CreateString(large),
                  "larger than 1048576 bytes: store it elsewhere");
    large[JSON_LIMIT - 2] = 0;
    check(encode(cJSON_CreateString(large), &why) != NULL, "as large as it gets", why,
          "");
}

/* Doubles read back as what they were, whatever their bits. */
static void check_doubles(void)
{
    unsigned long long state = 42;
    char *why;
    for (int i = 0; i < 200000; i++) {
        double x;
        state = state * 6364136223846793005u + 1442695040888963407u;
        unsigned long long bits = state ^ state >> 29;
        memcpy(&x, &bits, sizeof x);
        if (!(fabs(x) < 9007199254740992.0)) continue;
        char *text = encode(cJSON_CreateNumber(x), &why);
        cJSON *back = text ? decode(text, &why) : NULL;
        check(back && !memcmp(&back->valuedouble, &x, sizeof x), "a double",
              text ? text : why, "itself");
        forget_memory();
    }
}

int main(int argc, char **argv)
{
    use_arena_for_json();
    if (argc > 1 && !strcmp(argv[1], "accepts")) {
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) puts(good[i].canonical);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "corpus")) {
        for (size_t i = 0; i < sizeof good / sizeof *good; i++)
            printf("%s%cgood%c%s%c", good[i].text, 0, 0, good[i].canonical, 0);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            printf("%s%cbad%c%s%c", bad[i].text, 0, 0, bad[i].why, 0);
        return 0;
    }
    check_texts();
    check_values();
    check_doubles();
    forget_memory();
    printf("%d checks, %d failed\n", checks, failures);
    return failures > 0;
}
