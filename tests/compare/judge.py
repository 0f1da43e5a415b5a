"""Says whether two answers to one operation are the same, and if they are not, where: the first
field that differs, by its path. An answer is `(message, None)` or `(None, (CODE, text))`."""
from cluster import Failure
import meant


class Op:
    """One call: the method's name and the request. `token` names a user whose token goes along."""

    def __init__(self, method, request, token=None):
        self.method, self.request, self.token = method, request, token
        self.refused = None  # what etcd says of the token, once it was asked

    def __str__(self):
        text = " ".join(str(self.request).split())
        who = f" as {self.token}" if self.token else ""
        return f"{self.method}{who} {{ {text[:1500]} }}"


class Difference(Failure):
    """Two answers that are not the same."""

    def __init__(self, op, left, right):
        super().__init__(f"{where(left, right)}, of {op}")
        self.op, self.left, self.right = op, left, right

    @property
    def signature(self):
        """What it has in common with others of its kind."""
        return self.op.method, where(self.left, self.right, values=False)


def clean(answer):
    """Without what names the server."""
    message = answer[0]
    if message is not None and message.HasField("header"):
        message.header.ClearField("cluster_id")
        message.header.ClearField("member_id")
        message.header.ClearField("raft_term")
    return answer


def judge(op, left, right):
    """Raises Difference unless the answers are the same or differ as is meant."""
    left, right = clean(left), clean(right)
    if left == right or any(rule(op, left, right) for rule in meant.RULES):
        return
    raise Difference(op, left, right)


def where(left, right, values=True):
    """The first difference as a text."""
    if left[0] is None or right[0] is None:
        return f"{outcome(left)} against {outcome(right)}"
    return field_difference(left[0], right[0], "", values) or "unknown fields"


def outcome(answer):
    if answer[0] is None:
        return f"{answer[1][0]} ({answer[1][1]})"
    return "an answer"


def field_difference(a, b, path, values):
    for field in a.DESCRIPTOR.fields:
        x, y = getattr(a, field.name), getattr(b, field.name)
        name = path + field.name
        if field.label == field.LABEL_REPEATED:
            found = list_difference(field, x, y, name, values)
        elif field.type == field.TYPE_MESSAGE:
            found = presence(a, b, field, name) or field_difference(x, y, name + ".", values)
        elif x != y or one_sided(a, b, field):
            found = f"{name}: {show(x)} against {show(y)}" if values else name
        else:
            found = ""
        if found:
            return found
    return ""


def one_sided(a, b, field):
    """One of them has this choice of a oneof, even if it holds a zero."""
    return bool(field.containing_oneof) and a.HasField(field.name) != b.HasField(field.name)


def presence(a, b, field, name):
    if a.HasField(field.name) == b.HasField(field.name):
        return ""
    words = "there against missing" if a.HasField(field.name) else "missing against there"
    return f"{name}: {words}"


def list_difference(field, x, y, name, values):
    for i, (one, other) in enumerate(zip(x, y)):
        at = f"{name}[{i}]" if values else f"{name}[]"
        if field.type == field.TYPE_MESSAGE:
            found = field_difference(one, other, at + ".", values)
            if found:
                return found
        elif one != other:
            return f"{at}: {show(one)} against {show(other)}" if values else at
    if len(x) != len(y):
        return f"{name}: {len(x)} against {len(y)} of them" if values else f"{name}: how many"
    return ""


def show(value):
    text = repr(value)
    return text if len(text) <= 120 else text[:120] + f"... ({len(value)} bytes)"
