"""The differences between etcd's answers and Conclave's that are meant, each with its reason: the
only place where the differential test (e2e/test_etcd_diff.py) lets two answers differ. What is not
here is a fault. A rule sees the operation and both answers as `(message, None)` or
`(None, (CODE, text))` and tells whether the two are as good as equal; it is asked only when they
are not the same bytes.

What is never compared, since it names the server and not the data: cluster_id, member_id and
raft_term of headers, and Hash, which covers etcd's own file with the ids of its members (HashKV,
which covers the data, has to be equal to the bit). Nor is it asked whether the id of a watch that a
compaction ended, chosen by the client, can be had again: etcd keeps it until the stream ends.
"""

TTL_SLACK_S = 3
MIN_TTL_S = (2, 1)  # the shortest that a lease can be: etcd's, ours
TOKEN_REFUSED = (("UNAUTHENTICATED", "etcdserver: invalid auth token"),
                 ("INVALID_ARGUMENT", "etcdserver: user name is empty"))
SORTED_STABLY_MAX = 12  # Go sorts so few by insertion, which keeps equal ones in order


def both(left, right):
    """Both are messages."""
    return left[0] is not None and right[0] is not None


def remaining_ttl(op, left, right):
    """The seconds that are left of a lease depend on when each server was asked."""
    if op.method != "LeaseTimeToLive" or not both(left, right):
        return False
    a, b = copy(left[0]), copy(right[0])
    if abs(a.TTL - b.TTL) > TTL_SLACK_S or (a.TTL < 0) != (b.TTL < 0):
        return False
    a.TTL = b.TTL = 0
    return same_without_order(a, b, "keys")


def shortest_lease(op, left, right):
    """No lease is shorter than an election may take: with etcd's timeouts that is 2 s, with ours
    1 s. Who asks for less gets that, and is told so."""
    if op.method != "LeaseGrant" or not both(left, right) or op.request.TTL >= MIN_TTL_S[0]:
        return False
    if (left[0].TTL, right[0].TTL) != (MIN_TTL_S[0], max(op.request.TTL, MIN_TTL_S[1])):
        return False
    a, b = copy(left[0]), copy(right[0])
    a.TTL = b.TTL = 0
    return a == b


def member_add(op, _, right):
    """A member joins with a token, by which it proves that it may and gets its certificate: to
    name its addresses, as etcd has it, would be too little. The answer says what to do instead."""
    return op.method == "MemberAdd" and right[1] == (
        "FAILED_PRECONDITION", "etcdserver: a member is added by its own request with a join "
        "token: conclave join")


def unordered_lists(op, left, right):
    """etcd lists leases, keys of a lease and alarms in the random order of a Go map; permissions
    by key, those for one key as they came (here: by the range's end)."""
    field = {"LeaseLeases": "leases", "LeaseTimeToLive": "keys", "Alarm": "alarms",
             "RoleGet": "perm"}.get(op.method)
    return bool(field) and both(left, right) and same_without_order(left[0], right[0], field)


def ties(op, left, right):
    """Where more than a dozen keys are sorted by something that two of them have in common, etcd's
    order among those is that of an unstable sort: any order of theirs is right, and with a limit
    any choice among the last ones."""
    if op.method != "Range" or not both(left, right) or left[0].count <= SORTED_STABLY_MAX:
        return False
    a, b = left[0], right[0]
    if (a.header, a.more, a.count, len(a.kvs)) != (b.header, b.more, b.count, len(b.kvs)):
        return False
    field = {1: "version", 2: "create_revision", 3: "mod_revision",
             4: "value"}.get(op.request.sort_target)
    # With keys_only the values are gone by the time that we see them.
    if field is None or (field == "value" and op.request.keys_only):
        return field is not None
    if [getattr(kv, field) for kv in a.kvs] != [getattr(kv, field) for kv in b.kvs]:
        return False
    last = getattr(a.kvs[-1], field) if a.more and a.kvs else None
    return sure(a.kvs, field, last) == sure(b.kvs, field, last)


def sure(kvs, field, last):
    return sorted(kv.SerializeToString() for kv in kvs if getattr(kv, field) != last)


def alarm_header(op, left, right):
    """etcd 3.4 puts no header into the answer about an alarm; 3.5 does."""
    if op.method != "Alarm" or not both(left, right) or left[0].HasField("header"):
        return False
    b = copy(right[0])
    b.ClearField("header")
    return same_without_order(left[0], b, "alarms")


def corrupt_or_wrong(_, left, right):
    """While the cluster is corrupt or full, a request that is wrong in itself may be refused for
    either reason."""
    alarms = (("DATA_LOSS", "etcdserver: corrupt cluster"),
              ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded"))
    return left[1] in alarms and (right[1] or ("",))[0] in ("INVALID_ARGUMENT", "NOT_FOUND",
                                                            "OUT_OF_RANGE")


def token_first(op, left, right):
    """A token that is missing or not valid is refused before anything else is looked at, and where
    etcd 3.4 does not look at it: at a lease's time (3.5 does) and at a watch (etcd cancels it:
    'permission denied'). That it is not valid is for etcd to say: see Pair.ask_of_token."""
    if right[1] not in TOKEN_REFUSED or op.refused != right[1]:
        return False
    return left[0] is None or op.method == "LeaseTimeToLive" or (
        op.method == "TokenWatch" and left[0].canceled)


def refused_watch(op, left, right):
    """A watch that is not permitted gets the id -1 since etcd 3.5, before that what was asked. And
    etcd 3.4 lets who may read one key watch all from there on (GHSA-xg4h-6gfc-h4m8)."""
    if op.method != "TokenWatch" or not both(left, right):
        return False
    if op.request.range_end == b"\0" and not left[0].canceled:
        return right[0].canceled and right[0].watch_id == -1
    a, b = copy(left[0]), copy(right[0])
    a.watch_id = b.watch_id = 0
    return a == b


def root_role(op, _, right):
    """The role root may everything: later etcds say so, 3.4 lists what it was granted."""
    return op.method == "RoleGet" and op.request.role == "root" and right[0] is not None


def message_size(_, left, right):
    """What is too large for gRPC is so for both; the bound, which the text names, is ours."""
    words = "grpc: received message larger than max"
    return all((side[1] or ("", ""))[1].startswith(words) for side in (left, right))


def no_password(op, left, right):
    """Who tries a password does not learn from the answer that the user has none."""
    return op.method == "Authenticate" and right[1] == (
        "INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password") and (
        left[1] or ("", ""))[1].endswith("password was given for no password user")


def later_fields(op, left, right):
    """HashKV says which revision it hashed since etcd 3.6; Debian's does not yet."""
    if op.method != "HashKV" or not both(left, right):
        return False
    a, b = copy(left[0]), copy(right[0])
    asked = op.request.revision or b.header.revision
    if not a.hash_revision and b.hash_revision == asked:
        b.hash_revision = 0
    return a == b


def later_status(left, right, code):
    """The JSON gateway's status for FAILED_PRECONDITION is 400 since etcd 3.5, 412 before."""
    return code == 9 and (left, right) == (412, 400)


def may_be_swept(kind, revision, compacted):
    """Is an event the deletion at the very revision of the compaction? A watch from there on has to
    see it, and does so here; Debian's etcd sweeps it away (later ones keep such a tombstone)."""
    return kind == 1 and revision == compacted


def later_base64(body, left, right):
    """In the JSON gateway base64 without its padding, or URL-safe, is taken since etcd 3.6."""
    return body in ('{"key":"YQ"}', '{"key": "-_8="}') and (left, right) == ((400, 3), (200, None))


RULES = [remaining_ttl, shortest_lease, member_add, unordered_lists, ties, alarm_header,
         corrupt_or_wrong, token_first, refused_watch, root_role, message_size, no_password,
         later_fields]


def copy(message):
    other = type(message)()
    other.CopyFrom(message)
    return other


def same_without_order(a, b, field):
    a, b = copy(a), copy(b)
    for message in (a, b):
        items = getattr(message, field)
        key = (lambda i: i) if field == "keys" else (lambda i: i.SerializeToString())
        ordered = sorted(items, key=key)
        del items[:]
        items.extend(ordered)
    return a == b
