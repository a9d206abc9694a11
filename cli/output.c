#include "cli/output.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli/text.h"
#include "guest/describe.h"

int output_failed(void)
{
    return ferror(stdout) ? -EIO : 0;
}

int output_finish(struct error *err)
{
    bool failed = ferror(stdout);
    errno = 0;
    if (fclose(stdout) == 0 && !failed)
        return 0;
    int code = errno ? errno : EIO;
    return error_set(err, -code, "cannot write to stdout: %s", strerror(code));
}

/* Characters are escaped as \u202e, bytes that are no UTF-8 as \xff. */
void output_text(FILE *file, const char *text)
{
    uint32_t character;
    for (size_t length; *text; text += length) {
        length = utf8_next(text, &character);
        if (length && !text_is_unsafe(character)) {
            fwrite(text, 1, length, file);
        } else if (length > 1) {
            fprintf(file, "\\u%04x", character);
        } else {
            fprintf(file, "\\x%02x", (unsigned char)*text);
            length = 1;
        }
    }
}

static bool is_plain_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_@%+=:,./-";
    for (const char *p = word; *p; p++)
        if (!strchr(plain, *p) && !((unsigned char)*p & 0x80))
            return false;
    return *word;
}

int output_shell_word(const char *word, struct error *err)
{
    for (const char *p = word; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return error_set(err, -EINVAL, "'%s' holds control characters; no shell takes it",
                             word);
    if (is_plain_word(word)) {
        fputs(word, stdout);
        return 0;
    }
    putchar('\'');
    for (const char *p = word; *p; p++) {
        if (*p == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*p);
    }
    putchar('\'');
    return 0;
}

/* Its maker lets no control character below space in, save the ends of its lines. */
void output_xml(const char *document)
{
    uint32_t character;
    for (size_t length; *document; document += length) {
        length = utf8_next(document, &character);
        assert(length > 0);
        if (character >= 0x7f && text_is_unsafe(character))
            printf("&#x%x;", character);
        else
            fwrite(document, 1, length, stdout);
    }
}

const char *output_size(uint64_t bytes, char buffer[OUTPUT_SIZE_LENGTH])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    if (!isatty(STDOUT_FILENO)) {
        snprintf(buffer, OUTPUT_SIZE_LENGTH, "%llu", (unsigned long long)bytes);
        return buffer;
    }
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++)
        value /= 1024;
    snprintf(buffer, OUTPUT_SIZE_LENGTH, unit && value < 10 ? "%.1f %s" : "%.0f %s", value,
             units[unit]);
    return buffer;
}

/* ---- Objects ---- */

/* json-c escapes the control characters below space; the rest of what is unsafe can only stand
 * within strings, where \u means the same. */
void output_json_text(const char *text)
{
    uint32_t character;
    for (size_t length; *text; text += length) {
        length = utf8_next(text, &character);
        if (length == 0) {
            fputs("\\ufffd", stdout);
            length = 1;
        } else if (character >= 0x7f && text_is_unsafe(character)) {
            printf("\\u%04x", character);
        } else {
            fwrite(text, 1, length, stdout);
        }
    }
}

int output_json(struct json_object *object, struct error *err)
{
    if (!object)
        return error_set(err, -ENOMEM, "no memory for the output");
    cleanup_free char *text = NULL;
    int r = describe_text(object, &text, err);
    if (r == 0)
        output_json_text(text);
    return r;
}

/* "nvram_template_bytes" is shown as "nvram template", its value as a size. */
struct label {
    char text[64];
    bool is_size;
};

static struct label label_of(const char *name)
{
    struct label label = {0};
    snprintf(label.text, sizeof label.text, "%s", name);
    char *suffix = strstr(label.text, "_bytes");
    label.is_size = suffix && suffix[strlen("_bytes")] == '\0';
    if (label.is_size)
        *suffix = '\0';
    for (char *p = label.text; *p; p++)
        if (*p == '_')
            *p = ' ';
    return label;
}

static void print_scalar(struct json_object *value, bool is_size)
{
    char size[OUTPUT_SIZE_LENGTH];
    if (!value)
        fputs("none", stdout);
    else if (is_size && json_object_is_type(value, json_type_int))
        fputs(output_size(json_object_get_uint64(value), size), stdout);
    else if (json_object_is_type(value, json_type_boolean))
        fputs(json_object_get_boolean(value) ? "yes" : "no", stdout);
    else
        output_text(stdout, json_object_get_string(value));
}

static void print_members(struct json_object *object, int indent);

/* A value with the end of its line, or lines: objects stand below each other, all else in one line.
 */
static void print_value(struct json_object *value, int indent, int padding, bool is_size)
{
    bool is_array = json_object_is_type(value, json_type_array);
    size_t count = is_array ? json_object_array_length(value) : 1;
    struct json_object *first = is_array && count ? json_object_array_get_idx(value, 0) : value;
    if (json_object_is_type(first, json_type_object)) {
        putchar('\n');
        for (size_t i = 0; i < count; i++)
            print_members(is_array ? json_object_array_get_idx(value, i) : value, indent + 2);
        return;
    }
    printf("%*s", padding + 1, "");
    if (count == 0)
        print_scalar(NULL, false);
    for (size_t i = 0; i < count; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        print_scalar(is_array ? json_object_array_get_idx(value, i) : value, is_size);
    }
    putchar('\n');
}

/* "schema_version" is for programs. */
static bool is_shown(const char *name)
{
    return strcmp(name, "schema_version") != 0;
}

static void print_members(struct json_object *object, int indent)
{
    int width = 0;
    json_object_object_foreach(object, key, member)
    {
        int length = (int)strlen(label_of(key).text);
        if (is_shown(key) && !json_object_is_type(member, json_type_object) && length > width)
            width = length;
    }
    json_object_object_foreach(object, name, value)
    {
        if (!is_shown(name))
            continue;
        struct label label = label_of(name);
        printf("%*s%s:", indent, "", label.text);
        print_value(value, indent, width - (int)strlen(label.text), label.is_size);
    }
}

int output_object(struct json_object *object, struct error *err)
{
    if (!object)
        return error_set(err, -ENOMEM, "no memory for the output");
    print_members(object, 0);
    json_object_put(object);
    return 0;
}

/* Printed with the first object, so that a failure before it leaves stdout empty. */
static void print_head(struct json_list *list)
{
    if (!list->printed)
        printf("{\"schema_version\":%d,\"%s\":[", DESCRIBE_SCHEMA_VERSION, list->name);
}

int json_list_add(struct json_list *list, struct json_object *object, struct error *err)
{
    cleanup_json struct json_object *taken = object;
    const char *text = taken ? json_object_to_json_string_ext(
                                   taken, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
                             : NULL;
    if (!text)
        return error_set(err, -ENOMEM, "no memory for the output");
    print_head(list);
    fputs(list->printed ? ",\n" : "\n", stdout);
    output_json_text(text);
    list->printed = true;
    return output_failed();
}

void json_list_end(struct json_list *list)
{
    print_head(list);
    puts(list->printed ? "\n]}" : "]}");
}

/* ---- Tables ---- */

int table_begin(struct table *table, size_t columns, const char *const *headings, struct error *err)
{
    *table = (struct table){.columns = columns};
    table->cells = open_memstream(&table->bytes, &table->size);
    if (!table->cells)
        return error_set(err, -errno, "no memory for the output");
    table_row(table, headings);
    return 0;
}

void table_row(struct table *table, const char *const *cells)
{
    for (size_t i = 0; i < table->columns; i++) {
        size_t width = text_width(cells[i]);
        if (width > table->widths[i])
            table->widths[i] = width;
        fputs(cells[i], table->cells);
        putc('\0', table->cells);
    }
}

int table_print(struct table *table, struct error *err)
{
    if (fflush(table->cells) != 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    const char *cell = table->bytes, *end = table->bytes + table->size;
    while (cell < end && output_failed() == 0) {
        for (size_t i = 0; i < table->columns; i++) {
            output_text(stdout, cell);
            if (i + 1 < table->columns)
                printf("%*s", (int)(table->widths[i] - text_width(cell) + 2), "");
            cell += strlen(cell) + 1;
        }
        putchar('\n');
    }
    return 0;
}

void table_clear(struct table *table)
{
    if (table->cells)
        fclose(table->cells);
    free(table->bytes);
    *table = (struct table){0};
}
