/* Questions for the leader, wherever they were asked: how the members are, and changes of
 * membership. They travel as replica calls; admin.c encodes them on the asking side and answers
 * them on the leading one. */
#ifndef CONCLAVE_ADMIN_H
#define CONCLAVE_ADMIN_H

#include "api/manager.h"

enum admin_kind { ADMIN_MEMBERS = 1, ADMIN_CHANGE = 2, ADMIN_TRANSFER = 3 };

/* u8 kind, u8 change, u8 force, u64 raft id */
struct admin_request {
    enum admin_kind kind;
    enum change_kind change; /* of ADMIN_CHANGE: promote, demote, remove */
    bool force;              /* even when the quorum would be lost */
    uint64_t raft_id;        /* whom it is about; ADMIN_TRANSFER: 0 is whoever is most up to date */
    uint64_t leader;         /* who led when it was asked; stays with the asker */
};
/* Would a majority of the voters that are left without this one be reachable? ERR_PRECONDITION. */
RESULT admin_quorum(const struct manager *manager, const struct replica_status *s, uint64_t without,
                    bool force, struct why *why);
RESULT admin_encode(const struct admin_request *r, struct buf *out);

/* The answer to ADMIN_MEMBERS: u64 leader, u32 n, each u64 raft id, u8 role, u8 active, u64 match.
 */
struct admin_members {
    uint64_t leader;
    unsigned n;
    struct replica_member members[MEMBERS_MAX];
};
RESULT admin_decode_members(struct span bytes, struct admin_members *out);

#endif
