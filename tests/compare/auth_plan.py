"""Random operations on users, roles and permissions, and on keys by those users, while
authentication is switched on and off. Tokens are made by each server for itself: an operation
names the user, and the pair puts in that server's token of the user. Left out, since etcd 3.4 lets
through what is refused here: nested transactions, maintenance without root (scenes.py), and within
a transaction puts that read the former value or join a lease, which it judges as plain puts."""
from judge import Op

ROOT, ROOT_PASSWORD = "root", "secret of root"
USERS = ["u1", "u2", "u3"]
ROLES = ["r1", "r2", "r3"]
PASSWORDS = ["one", "two"]
KEYS = [b"a", b"b", b"c", b"d", b"e"]
# One range for each key: of two that begin alike etcd 3.4 may keep the same one twice.
GRANTED = {b"a": b"", b"b": b"e", b"c": b"\0", b"d": b"", b"e": b"f"}
ENDS = [b"", b"", b"c", b"e", b"\0", b"a"]
LEASES = [1, 2]

WEIGHTS = {"user_add": 6, "user_delete": 2, "password": 2, "user_grant": 8, "user_revoke": 3,
           "role_add": 5, "role_delete": 2, "grant": 12, "revoke": 4, "lists": 10, "enable": 3,
           "disable": 1, "authenticate": 20, "put": 14, "range": 16, "delete": 6, "txn": 10,
           "lease": 8, "watch": 5}


class AuthPlan:
    """`random` is seeded; `pair` is where the operations run."""

    def __init__(self, random, pair):
        self.random, self.pair, self.pb = random, pair, pair.pb
        self.kinds, self.weights = list(WEIGHTS), list(WEIGHTS.values())

    def first(self):
        """What has to be there before authentication can be switched on."""
        pb = self.pb
        return [Op("AuthEnable", pb.AuthEnableRequest()),
                Op("UserAdd", pb.AuthUserAddRequest(name=ROOT, password=ROOT_PASSWORD)),
                Op("AuthEnable", pb.AuthEnableRequest()),
                Op("RoleAdd", pb.AuthRoleAddRequest(name=ROOT)),
                Op("RoleAdd", pb.AuthRoleAddRequest(name=ROOT)),
                Op("UserGrantRole", pb.AuthUserGrantRoleRequest(user=ROOT, role=ROOT)),
                Op("Authenticate", pb.AuthenticateRequest(name=ROOT, password=ROOT_PASSWORD)),
                Op("AuthEnable", pb.AuthEnableRequest()),
                self.login(ROOT)]

    def last(self):
        """Out of the way again, whatever the state."""
        pb = self.pb
        users = [Op("UserDelete", pb.AuthUserDeleteRequest(name=n)) for n in (*USERS, ROOT)]
        roles = [Op("RoleDelete", pb.AuthRoleDeleteRequest(role=n)) for n in (*ROLES, ROOT)]
        return [self.login(ROOT), Op("AuthDisable", pb.AuthDisableRequest(), ROOT), *users, *roles]

    def login(self, user):
        password = ROOT_PASSWORD if user == ROOT else PASSWORDS[0]
        return Op("Authenticate", self.pb.AuthenticateRequest(name=user, password=password))

    def chance(self, percent):
        return self.random.random() * 100 < percent

    def pick(self, items):
        return self.random.choice(items)

    def user(self):
        return self.pick(["", ROOT, "nobody"]) if self.chance(8) else self.pick(USERS)

    def role(self):
        return self.pick(["", ROOT, "norole"]) if self.chance(8) else self.pick(ROLES)

    def who(self, user):
        """Mostly the one who may."""
        if self.chance(80):
            return user
        return self.pick([None, ROOT, "bogus", *USERS])

    def op(self, method, request, user=ROOT):
        return Op(method, request, self.who(user))

    def batch(self):
        return [getattr(self, "make_" + self.random.choices(self.kinds, self.weights)[0])()]

    # --- users and roles --------------------------------------------------------------------------

    def make_user_add(self):
        r = self.pb.AuthUserAddRequest(name=self.user(), password=PASSWORDS[0])
        if self.chance(15):
            r.password = self.pick(["", PASSWORDS[1]])
        if self.chance(15):
            r.options.no_password = True
        return self.op("UserAdd", r)

    def make_user_delete(self):
        return self.op("UserDelete", self.pb.AuthUserDeleteRequest(name=self.user()))

    def make_password(self):
        name = self.pick(USERS + ["", "nobody"])
        return self.op("UserChangePassword", self.pb.AuthUserChangePasswordRequest(
            name=name, password=self.pick(PASSWORDS + [PASSWORDS[0]] * 3)))

    def make_user_grant(self):
        return self.op("UserGrantRole", self.pb.AuthUserGrantRoleRequest(user=self.user(),
                                                                         role=self.role()))

    def make_user_revoke(self):
        user = self.user()  # root keeps its role, or nobody could ever switch it off
        role = self.pick(ROLES) if user == ROOT else self.role()
        return self.op("UserRevokeRole", self.pb.AuthUserRevokeRoleRequest(name=user, role=role))

    def make_role_add(self):
        return self.op("RoleAdd", self.pb.AuthRoleAddRequest(name=self.role()))

    def make_role_delete(self):
        role = self.pick(ROLES + ["norole", ""])
        return self.op("RoleDelete", self.pb.AuthRoleDeleteRequest(role=role))

    def make_grant(self):
        r = self.pb.AuthRoleGrantPermissionRequest(name=self.role())
        r.perm.permType = self.random.randint(0, 2)
        r.perm.key = self.pick(KEYS)
        r.perm.range_end = GRANTED[r.perm.key]
        return self.op("RoleGrantPermission", r)

    def make_revoke(self):
        key = self.pick(KEYS)
        return self.op("RoleRevokePermission", self.pb.AuthRoleRevokePermissionRequest(
            role=self.role(), key=key, range_end=self.pick([GRANTED[key], b"z"])))

    def make_lists(self):
        pb = self.pb
        return self.pick([
            self.op("UserGet", pb.AuthUserGetRequest(name=self.user())),
            self.op("UserList", pb.AuthUserListRequest()),
            self.op("RoleGet", pb.AuthRoleGetRequest(role=self.role())),
            self.op("RoleList", pb.AuthRoleListRequest())])

    def make_enable(self):
        return self.op("AuthEnable", self.pb.AuthEnableRequest())

    def make_disable(self):
        return self.op("AuthDisable", self.pb.AuthDisableRequest())

    def make_authenticate(self):
        op = self.login(self.user() if self.chance(60) else ROOT)
        if self.chance(10):
            op.request.password = self.pick(["wrong", "", PASSWORDS[1]])
        return op

    # --- keys -------------------------------------------------------------------------------------

    def span(self):
        """Not a reversed one: etcd's judgement of who may read nothing is arbitrary."""
        key, end = self.pick(KEYS), self.pick(ENDS)
        if end not in (b"", b"\0") and end <= key:
            end = b""
        return (b"\0" if self.chance(5) else key), end

    def put(self):
        return self.pb.PutRequest(key=self.pick(KEYS), value=b"v", prev_kv=self.chance(20),
                                  lease=self.pick(LEASES) if self.chance(20) else 0)

    def range(self):
        key, end = self.span()
        return self.pb.RangeRequest(key=key, range_end=end, serializable=self.chance(20))

    def delete(self):
        key, end = self.span()
        return self.pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=self.chance(30))

    def make_put(self):
        return self.op("Put", self.put(), self.pick(USERS))

    def make_range(self):
        return self.op("Range", self.range(), self.pick(USERS))

    def make_delete(self):
        return self.op("DeleteRange", self.delete(), self.pick(USERS))

    def make_txn(self):
        t = self.pb.TxnRequest()
        if self.chance(60):
            key, end = self.span()
            t.compare.add(key=key, range_end=end, target=0, version=1)
        for ops in (t.success, t.failure):
            for _ in range(self.random.randint(0, 2)):
                op, how = ops.add(), self.random.randint(0, 2)
                if how == 0:
                    op.request_put.CopyFrom(self.put())
                    op.request_put.prev_kv, op.request_put.lease = False, 0
                elif how == 1:
                    op.request_range.CopyFrom(self.range())
                else:
                    op.request_delete_range.CopyFrom(self.delete())
        return self.op("Txn", t, self.pick(USERS))

    def make_lease(self):
        pb, lease = self.pb, self.pick(LEASES)
        method, request = self.pick([
            ("LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=100000)),
            ("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease)),
            ("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease, keys=self.chance(50)))])
        return Op(method, request, ROOT)  # etcd 3.4 lets anybody

    def make_watch(self):
        key, end = self.span()
        return self.op("TokenWatch", self.pb.WatchCreateRequest(key=key, range_end=end),
                       self.pick(USERS))
