/* See app.h. Alone in its file, so that a task's supervisor does not bring the server along. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "api/app.h"

RESULT app_harden(struct why *why) {
    const struct rlimit none = {0, 0};
    (void)umask(077);
    (void)signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0)
        return fail_with(why, ERR_INTERNAL, "core dumps can't be switched off: %s",
                         strerror(errno));
    return OK;
}
