// Answers syncs as the file named by SYNC_FILE says: while it holds `stands`, none returns; while it holds `unknown`, that of a directory
// is EINVAL, as on some FUSE and network file systems. Preloaded by tests: no disk does so on demand.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int says(const char *word) {
    char text[32] = "";
    const char *path = getenv("SYNC_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    return !strncmp(text, word, strlen(word));
}

static int answered(long call, int descriptor) {
    struct stat found;
    while (says("stands")) usleep(20000);
    if (says("unknown") && !fstat(descriptor, &found) && S_ISDIR(found.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(call, descriptor);
}

int fsync(int descriptor) { return answered(SYS_fsync, descriptor); }

int fdatasync(int descriptor) { return answered(SYS_fdatasync, descriptor); }
