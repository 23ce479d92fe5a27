/* For libFuzzer: what decode() takes, encode() writes so that decode() gets the same again;
   what is written is canonical; nothing makes either of them read or write where it should
   not.  common.bats says how it is built and run. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"
#include "../memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *why, *why_not;
    use_arena_for_json();
    cJSON *value = decode(copy_text((const char *)data, size), &why);
    if (!value != (why != NULL)) abort();
    char *text = value ? encode(value, &why) : NULL;
    if (value && !text && !strstr(why, "larger than")) abort();
    if (text) {
        cJSON *again = decode(text, &why);
        char *same = again ? encode(again, &why_not) : NULL;
        if (!same || strcmp(same, text) || strlen(text) > JSON_LIMIT) abort();
    }
    forget_memory();
    return 0;
}
