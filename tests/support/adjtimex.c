// Answers adjtimex(2) as the file named by ADJTIMEX_FILE says: `synchronised`, `refused`, or anything else for a clock
// that nothing keeps right. Preloaded by tests, because a machine has one kernel and its clock is not theirs.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

int adjtimex(struct timex *found) {
    char text[32] = "";
    const char *path = getenv("ADJTIMEX_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    if (!strncmp(text, "refused", 7)) {
        errno = EPERM;
        return -1;
    }
    int is_synchronised = !strncmp(text, "synchronised", 12);
    memset(found, 0, sizeof *found);
    found->status = is_synchronised ? STA_PLL : STA_UNSYNC;
    found->maxerror = is_synchronised ? 250000 : 16000000;
    return is_synchronised ? TIME_OK : TIME_ERROR;
}
