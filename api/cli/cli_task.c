/* What runs tasks: the supervisor's own verb, which the agent starts, and the output of a task. */
#include "api/cli/cli.h"
#include "api/task/supervisor.h"

static enum err run_supervisor(struct cli *cli, struct why *why) {
    (void)cli;
    return supervisor_serve(why);
}

const struct verb verb_task_supervisor = {
    .name = "task-supervisor",
    .words = "",
    .about = "keep one task (the node's agent starts it)",
    .run = run_supervisor,
    .local = true,
    .hidden = true,
};
