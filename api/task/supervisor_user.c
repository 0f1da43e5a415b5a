/* Who the task is: "uid", "uid:gid", or names of the /etc/passwd and /etc/group of its root, which
 * are read here as text: the node's own name services say nothing about an image. And the way down
 * to it: no capabilities but those that docker leaves a container (without MKNOD: no disk is made
 * out of a number), no new privileges, no core dumps. */
#include "api/task/supervisor_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define USERS_FILE_MAX (1 * MIB) /* of /etc/passwd and /etc/group */
#define FIELDS         7

static RESULT read_users(const char *path, struct buf *out) {
    char piece[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ERR_NOT_FOUND;
    enum err e = OK;
    for (ssize_t n; e == OK && (n = read(fd, piece, sizeof piece)) > 0;)
        e = buf_add(out, piece, (size_t)n);
    (void)close(fd);
    if (e == OK) e = buf_u8(out, 0);
    return e;
}

/* The fields of the next line, which is cut up in place. */
static bool next_line(char **at, char *fields[FIELDS], unsigned *n) {
    if (!*at || !**at) return false;
    char *line = *at, *end = strchr(line, '\n');
    *at = end ? end + 1 : NULL;
    if (end) *end = '\0';
    for (*n = 0; line && *n < FIELDS; ++*n) {
        fields[*n] = line;
        line = strchr(line, ':');
        if (line) *line++ = '\0';
    }
    return true;
}

static bool number_of(const char *text, uint32_t *out) {
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno != 0 || n >= UINT32_MAX) return false;
    *out = (uint32_t)n;
    return true;
}

static bool has_member(const char *list, const char *name) {
    size_t size = strlen(name);
    for (const char *at = list; at && *at;) {
        const char *end = strchrnul(at, ',');
        if ((size_t)(end - at) == size && memcmp(at, name, size) == 0) return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

/* The line of /etc/passwd whose name or number it is; *name is then its name. */
static bool find_user(const char *text, struct sup_user *out, char name[64]) {
    struct buf file = buf_new(USERS_FILE_MAX);
    char *fields[FIELDS], *at = NULL;
    uint32_t uid, gid;
    bool found = false;
    unsigned n;
    if (read_users("/etc/passwd", &file) == OK) at = (char *)file.at;
    while (!found && next_line(&at, fields, &n)) {
        if (n < 6 || !number_of(fields[2], &uid) || !number_of(fields[3], &gid)) continue;
        if (strcmp(fields[0], text) != 0 && strcmp(fields[2], text) != 0) continue;
        found = true;
        out->uid = uid;
        out->gid = gid;
        (void)snprintf(name, 64, "%s", fields[0]);
        (void)snprintf(out->home, sizeof out->home, "%s", fields[5]);
    }
    buf_free(&file);
    return found;
}

/* The number of a group, and the groups that `member` is in. */
static bool read_groups(const char *group, const char *member, struct sup_user *out) {
    struct buf file = buf_new(USERS_FILE_MAX);
    char *fields[FIELDS], *at = NULL;
    uint32_t gid;
    bool found = false;
    unsigned n;
    if (read_users("/etc/group", &file) == OK) at = (char *)file.at;
    while (next_line(&at, fields, &n)) {
        if (n < 3 || !number_of(fields[2], &gid)) continue;
        if (group && strcmp(fields[0], group) == 0) {
            out->gid = gid;
            found = true;
        }
        if (member && n > 3 && has_member(fields[3], member) && out->n < ARRAY_SIZE(out->groups))
            out->groups[out->n++] = gid;
    }
    buf_free(&file);
    return found;
}

RESULT sup_user_find(const char *text, struct sup_user *out, struct why *why) {
    char user[64], name[64] = "";
    *out = (struct sup_user){.home = "/"};
    (void)snprintf(user, sizeof user, "%s", text[0] ? text : "0");
    char *group = strchr(user, ':');
    if (group) *group++ = '\0';
    bool known = find_user(user, out, name);
    if (!known && !number_of(user, &out->uid))
        return fail_with(why, ERR_NOT_FOUND, "the image's /etc/passwd has no user '%s'", user);
    if (!group || !group[0]) {
        if (known) (void)read_groups(NULL, name, out);
        return OK;
    }
    if (number_of(group, &out->gid) || read_groups(group, NULL, out)) return OK;
    return fail_with(why, ERR_NOT_FOUND, "the image's /etc/group has no group '%s'", group);
}

/* --- becoming it ------------------------------------------------------------------------------ */

static const int kept[] = {CAP_CHOWN,      CAP_DAC_OVERRIDE, CAP_FSETID,           CAP_FOWNER,
                           CAP_NET_RAW,    CAP_SETGID,       CAP_SETUID,           CAP_SETFCAP,
                           CAP_SETPCAP,    CAP_KILL,         CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT,
                           CAP_AUDIT_WRITE};

static uint64_t kept_set(void) {
    uint64_t set = 0;
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        set |= 1ULL << kept[i];
    return set;
}

static bool drop_bounding(void) {
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(kept_set() & 1ULL << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) return false;
    return true;
}

static bool set_capabilities(uint64_t set) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)set, .permitted = (uint32_t)set},
        {.effective = (uint32_t)(set >> 32), .permitted = (uint32_t)(set >> 32)}};
    return syscall(SYS_capset, &head, data) == 0;
}

RESULT sup_user_become(const struct sup_user *u, struct why *why) {
    const struct rlimit none = {0, 0};
    bool done = setrlimit(RLIMIT_CORE, &none) == 0 &&
                prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 && drop_bounding() &&
                setgroups(u->n, u->groups) == 0 && setresgid(u->gid, u->gid, u->gid) == 0 &&
                setresuid(u->uid, u->uid, u->uid) == 0 &&
                set_capabilities(u->uid == 0 ? kept_set() : 0) &&
                prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    if (done) return OK;
    return fail_with(why, ERR_PERMISSION, "the task's user and privileges can't be set: %s",
                     strerror(errno));
}
