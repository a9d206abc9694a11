/* Changes a store behind its back, with checksums on the pages as the store makes them: behind
 * STORE SQL. */
#include <stdio.h>

#include "base/cleanup.h"
#include "store/db.h"

int main(int argc, char **argv)
{
    cleanup(db_closep) struct db *db = NULL;
    struct error err = {0};
    if (argc != 3 || db_open(argv[1], DB_WRITE, &db, &err) < 0 ||
        db_script(db, argv[2], &err) < 0) {
        fprintf(stderr, "behind: %s\n", err.text);
        return 1;
    }
    return 0;
}
