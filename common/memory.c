#include "memory.h"

#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { BLOCK = 64 * 1024, ALIGN = 16 };

typedef struct Block {
    struct Block *next;
    size_t used, size;
    _Alignas(ALIGN) char bytes[];
} Block;

static Block *recent;  // since the last forget_memory()
static Block *older;   // since the one before
static Block *kept;    // never freed

static Block *add_block(size_t size)
{
    Block *block = malloc(sizeof(Block) + size);
    if (!block) die("out of memory: could not take %zu more bytes", size);
    *block = (Block){.next = recent, .size = size};
    return recent = block;
}

void *take(size_t size)
{
    if (size > PTRDIFF_MAX / 2) die("no %zu bytes are to be had", size);
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    Block *block = recent;
    if (!block || block->size - block->used < size)
        block = add_block(size > BLOCK ? size : BLOCK);
    void *memory = block->bytes + block->used;
    block->used += size;
    return memset(memory, 0, size);
}

char *copy_text(const char *text, size_t length)
{
    char *copy = take(length + 1);
    if (length) memcpy(copy, text, length);
    return copy;
}

char *first_line(const char *text) { return copy_text(text, strcspn(text, "\n")); }

static bool inside_character(char byte) { return (byte & 0xc0) == 0x80; }  // of UTF-8

char *excerpt(const char *text, size_t from, size_t most)
{
    while (from && inside_character(text[from])) from--;
    size_t length = strnlen(text + from, most);
    while (length && inside_character(text[from + length])) length--;
    return format("%s%s%s", from ? "..." : "", copy_text(text + from, length),
                  text[from + length] ? "..." : "");
}

char *vformat(const char *how, va_list list)
{
    char small[256];  // nearly always enough, and then the text is printed once
    va_list again;
    va_copy(again, list);
    size_t length = (size_t)vsnprintf(small, sizeof small, how, list);
    char *text = take(length + 1);
    if (length < sizeof small) memcpy(text, small, length);
    else vsnprintf(text, length + 1, how, again);
    va_end(again);
    return text;
}

char *format(const char *how, ...)
{
    va_list list;
    va_start(list, how);
    char *text = vformat(how, list);
    va_end(list);
    return text;
}

static void move(Block **from, Block **to)
{
    Block **end = from;
    while (*end) end = &(*end)->next;
    *end = *to;
    *to = *from;
    *from = NULL;
}

void keep_memory(void)
{
    move(&recent, &kept);
    move(&older, &kept);
}

/* Every block goes back to malloc, so that a sanitizer sees a pointer used too late. */
void forget_memory(void)
{
    while (older) {
        Block *next = older->next;
        free(older);
        older = next;
    }
    move(&recent, &older);
}
