#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "firmware/search.h"
#include "scratch.h"
#include "testing.h"

static int enter(void **state)
{
    return scratch_enter(state) || mkdir("a", 0755) < 0 || mkdir("b", 0755) < 0 ||
           mkdir("c", 0755) < 0;
}

static const char *const directories[] = {"a", "b", "c"};

static void assert_finds(const char *const *expected, size_t count)
{
    cleanup(search_result_clear) struct search_result found = {0};
    struct error err = {0};
    assert_ok(search_directories(directories, 3, &found, &err), err);
    for (size_t i = 0; i < found.count && i < count; i++)
        assert_string_equal(found.paths[i], expected[i]);
    assert_int_equal(found.count, count);
}

static void sorts_by_name_over_all_directories(void **state)
{
    scratch_write_text("a/60-x.json", "{}");
    scratch_write_text("b/50-x.json", "{}");
    scratch_write_text("c/9-x.json", "{}");
    scratch_write_text("c/55-x.json", "{}");
    static const char *const expected[] = {"b/50-x.json", "c/55-x.json", "a/60-x.json",
                                           "c/9-x.json"};
    assert_finds(expected, 4);
}

static void the_more_specific_takes_the_place(void **state)
{
    scratch_write_text("a/50-x.json", "{}");
    scratch_write_text("b/50-x.json", "{}");
    scratch_write_text("a/60-x.json", "{}");
    scratch_write_text("c/60-x.json", "{}");
    scratch_write_text("b/60-x.json", "");
    static const char *const expected[] = {"b/50-x.json", "c/60-x.json"};
    assert_finds(expected, 2);
}

static void an_empty_file_hides(void **state)
{
    scratch_write_text("a/50-x.json", "{}");
    scratch_write_text("b/50-x.json", "{}");
    scratch_write_text("c/50-x.json", "");
    scratch_write_text("a/60-x.json", "");
    scratch_write_text("b/60-x.json", "{}");
    static const char *const expected[] = {"b/60-x.json"};
    assert_finds(expected, 1);
}

static void passes_over_what_is_no_descriptor(void **state)
{
    scratch_write_text("a/50-x.json", "{}");
    scratch_write_text("b/.50-x.json", "{}");
    scratch_write_text("b/.json", "{}");
    scratch_write_text("b/50-x.json~", "{}");
    scratch_write_text("b/50-x.json.dpkg-old", "{}");
    scratch_write_text("b/README", "{}");
    assert_int_equal(mkdir("c/50-x.json", 0755), 0);
    assert_int_equal(mkfifo("b/50-x.json", 0600), 0);
    assert_int_equal(symlink("nowhere", "c/51-x.json"), 0);
    assert_int_equal(symlink("../a/50-x.json", "c/52-x.json"), 0);
    static const char *const expected[] = {"a/50-x.json", "c/52-x.json"};
    assert_finds(expected, 2);
}

static void absent_directories_are_empty(void **state)
{
    static const char *const absent[] = {"none", "a", "a/50-x.json"};
    scratch_write_text("a/50-x.json", "{}");
    struct search_result found = {0};
    struct error err = {0};
    assert_ok(search_directories(absent, 1, &found, &err), err);
    assert_int_equal(found.count, 0);
    assert_ok(search_directories(absent, 0, &found, &err), err);
    assert_ok(search_directories(absent, 3, &found, &err), err);
    assert_int_equal(found.count, 1);
    search_result_clear(&found);
    assert_int_equal(found.count, 0);
    assert_null(found.paths);
}

static void finds_many(void **state)
{
    char name[40];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%c/%02d.json", 'a' + i % 3, (i * 37) % 100);
        scratch_write_text(name, "{}");
    }
    cleanup(search_result_clear) struct search_result found = {0};
    struct error err = {0};
    assert_ok(search_directories(directories, 3, &found, &err), err);
    assert_int_equal(found.count, 100);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "/%02d.json", i);
        assert_contains(found.paths[i], name);
    }
}

static bool finds_in_search_path(const char *path)
{
    cleanup(search_result_clear) struct search_result found = {0};
    struct error err = {0};
    assert_ok(search_descriptors(&found, &err), err);
    for (size_t i = 0; i < found.count; i++)
        if (strcmp(found.paths[i], path) == 0)
            return true;
    return false;
}

static void only_users_have_a_directory_of_their_own(void **state)
{
    cleanup_free char *here = getcwd(NULL, 0);
    cleanup_free char *path = NULL, *config = NULL;
    assert_true(asprintf(&path, "%s/.config/qemu/firmware/fwfs-unit-test.json", here) > 0);
    assert_true(asprintf(&config, "%s/.config", here) > 0);
    assert_int_equal(mkdir(".config", 0755), 0);
    assert_int_equal(mkdir(".config/qemu", 0755), 0);
    assert_int_equal(mkdir(".config/qemu/firmware", 0755), 0);
    scratch_write_text(path, "{}");
    assert_int_equal(setenv("HOME", here, 1), 0);
    assert_int_equal(unsetenv("XDG_CONFIG_HOME"), 0);

    if (geteuid() == 0) {
        assert_false(finds_in_search_path(path));
        assert_int_equal(seteuid(65534), 0);
    }
    bool by_home = finds_in_search_path(path);
    setenv("HOME", "relative", 1);
    bool by_nothing = finds_in_search_path(path);
    setenv("XDG_CONFIG_HOME", config, 1);
    bool by_config = finds_in_search_path(path);
    assert_int_equal(seteuid(getuid()), 0);

    assert_true(by_home);
    assert_false(by_nothing);
    assert_true(by_config);
}

int main(void)
{
#define with_directories(test) cmocka_unit_test_setup_teardown(test, enter, scratch_leave)
    const struct CMUnitTest tests[] = {
        with_directories(sorts_by_name_over_all_directories),
        with_directories(the_more_specific_takes_the_place),
        with_directories(an_empty_file_hides),
        with_directories(passes_over_what_is_no_descriptor),
        with_directories(absent_directories_are_empty),
        with_directories(finds_many),
        with_directories(only_users_have_a_directory_of_their_own),
    };
    return cmocka_run_group_tests_name("search", tests, NULL, NULL);
}
