# The people of the table `cast`, with Samba's own library, on the domain controller:
#     cast.py create CAST         all of them, and the domain's password policy, before Samba first runs
#     cast.py restore CAST SAM    one of them: password and condition as in the table again
# One process and one transaction: twenty people and three hundred groups take two seconds.
import secrets
import sys

import ldb
from samba import sd_utils
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

DOMAIN = "acme.com"
SUFFIXES = ["brand.example"]  # what the forest publishes beside its domain
MINUTE = 60 * 10_000_000  # AD counts time in units of 100 ns, and durations as negative numbers
DAY = 24 * 60 * MINUTE
YEAR_2000 = 125_911_584_000_000_000
NEVER = 2**63 - 1
NORMAL_ACCOUNT, DISABLED = 0x200, 0x2
GLOBAL_GROUP = -0x80000000 | 0x2

POLICY = {
    "lockoutThreshold": 3,
    "lockoutDuration": -30 * MINUTE,
    "lockOutObservationWindow": -30 * MINUTE,
    "maxPwdAge": -3650 * DAY,  # the domain is cached: its passwords must outlive the cache
    "minPwdAge": 0,
    "minPwdLength": 1,
    "pwdHistoryLength": 0,
    "pwdProperties": 0,  # no complexity rules
}

# What every fine-grained policy says, and what those of a condition say instead.
FINE_GRAINED = {
    "msDS-PasswordSettingsPrecedence": 10,
    "msDS-PasswordReversibleEncryptionEnabled": "FALSE",
    "msDS-PasswordHistoryLength": 0,
    "msDS-PasswordComplexityEnabled": "FALSE",
    "msDS-MinimumPasswordLength": 1,
    "msDS-MinimumPasswordAge": 0,
    "msDS-MaximumPasswordAge": POLICY["maxPwdAge"],
    "msDS-LockoutThreshold": POLICY["lockoutThreshold"],
    "msDS-LockoutObservationWindow": POLICY["lockOutObservationWindow"],
    "msDS-LockoutDuration": POLICY["lockoutDuration"],
}
POLICIES = {
    "expires-soon": {"msDS-MaximumPasswordAge": -7 * DAY // 2},
    "strict-policy": {
        "msDS-MinimumPasswordLength": 12,
        "msDS-PasswordHistoryLength": 3,
        "msDS-PasswordComplexityEnabled": "TRUE",
    },
    "new-password": {"msDS-MinimumPasswordAge": -1 * DAY},
}

# The right to change a password (MS-ADTS 5.1.3.2.1), denied to the person and to everybody.
CANNOT_CHANGE = "".join(f"(OD;;CR;ab721a53-1e2f-11d0-9819-00aa0040529b;;{who})" for who in ("PS", "WD"))

# By default nobody but administrators reads a fine-grained policy. Of one of them computers are let know more.
READABLE = {"new-password": "(A;;RPLCLORC;;;DC)"}

ORDINARY = {
    "userAccountControl": NORMAL_ACCOUNT,
    "accountExpires": NEVER,
    "pwdLastSet": -1,  # now
    "logonHours": [],
    "userWorkstations": [],
}

# What a condition changes in an ordinary account.
CONDITIONS = {
    "disabled": {"userAccountControl": NORMAL_ACCOUNT | DISABLED},
    "account-expired": {"accountExpires": YEAR_2000},
    "must-change": {"pwdLastSet": 0},
    "out-of-hours": {"logonHours": bytes(21)},
    "other-workstation": {"userWorkstations": "OTHERPC"},
}


class Person:
    def __init__(self, line):
        self.key, self.sam, self.upn, self.password, self.condition = map(cell, line.split("|"))

    def dn(self, root):
        return f"CN={self.sam},OU=People,{root}"


def cell(text):
    text = text.strip()
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    return "" if text == "-" else text


def read_cast(path):
    with open(path, encoding="utf-8") as table:
        people = [Person(line) for line in table if line.strip() and not line.startswith("#")]
    return [person for person in people if person.condition != "administrator"]


class Domain:
    def __init__(self):
        configuration = LoadParm()
        configuration.load_default()
        self.db = SamDB(session_info=system_session(), lp=configuration)
        self.root = self.db.domain_dn()
        self.partition_file = configuration.private_path(f"sam.ldb.d/{self.root.upper()}.ldb")

    def add(self, dn, attributes):
        self.db.add({"dn": dn} | {name: plain(value) for name, value in attributes.items()})
        return dn

    def set(self, dn, attributes):
        self.db.modify(replacement(self.db, dn, attributes))

    def set_password(self, dn, password):
        self.set(dn, {"unicodePwd": f'"{password}"'.encode("utf-16-le")})

    def set_beneath(self, dn, attributes):
        """Writes without Samba's modules: what AD lets happen and they do not."""
        partition = ldb.Ldb(self.partition_file)
        partition.modify(replacement(partition, dn, attributes))

    def put_first(self, dn, aces):
        """Before what the object's security descriptor says already, once."""
        descriptor = sd_utils.SDUtils(self.db)
        if aces not in descriptor.get_sd_as_sddl(dn):
            descriptor.dacl_add_ace(dn, aces)

    def add_group(self, name, members):
        return self.add(f"CN={name},OU=Groups,{self.root}", {
            "objectClass": "group", "sAMAccountName": name, "groupType": GLOBAL_GROUP, "member": members,
        })


def plain(value):
    return str(value) if isinstance(value, int) else value


def replacement(db, dn, attributes):
    message = ldb.Message(ldb.Dn(db, dn))
    for name, value in attributes.items():
        message[name] = ldb.MessageElement(plain(value), ldb.FLAG_MOD_REPLACE, name)
    return message


def add_policy(domain):
    domain.set(domain.root, POLICY)
    domain.set(f"CN=Partitions,{domain.db.get_config_basedn()}", {"uPNSuffixes": SUFFIXES})
    for name in ("People", "Groups"):
        domain.add(f"OU={name},{domain.root}", {"objectClass": "organizationalUnit"})


def add_person(domain, person, cast):
    dn = person.dn(domain.root)
    upn = f"before.{person.upn}" if clashes(person, cast) else person.upn
    domain.add(dn, {"objectClass": "user", "sAMAccountName": person.sam, "userPrincipalName": upn})
    set_account(domain, person)


def clashes(person, cast):
    """Is this UPN what somebody else is called implicitly?"""
    return any(person.upn == f"{other.sam}@{DOMAIN}" for other in cast if other is not person)


def set_account(domain, person):
    dn = person.dn(domain.root)
    # What was chosen before is pushed out of AD's memory.
    for _ in range(POLICIES.get(person.condition, {}).get("msDS-PasswordHistoryLength", 0)):
        domain.set_password(dn, f"F0rgotten-{secrets.token_hex(8)}")
    domain.set_password(dn, person.password)
    if person.condition == "cannot-change":
        domain.put_first(dn, CANNOT_CHANGE)
    domain.set(dn, ORDINARY)
    domain.set(dn, CONDITIONS.get(person.condition, {"pwdLastSet": -1}))


def set_beneath(domain, person, cast):
    """Samba refuses a clashing UPN and a pwdLastSet in the past."""
    attributes = {}
    if clashes(person, cast):
        attributes["userPrincipalName"] = person.upn
    if person.condition == "password-expired":
        attributes["pwdLastSet"] = YEAR_2000
    if attributes:
        domain.set_beneath(person.dn(domain.root), attributes)


def add_groups(domain, cast):
    def members(wanted):
        return [person.dn(domain.root) for person in cast if wanted(person.condition)]

    night = domain.add_group("Agents Night Shift", members(lambda c: c == "nested"))
    domain.add_group("XCALLY Agents", [night] + members(lambda c: c not in ("nested", "outsider")))
    domain.add_group("XCALLY Denied", members(lambda c: c == "denied"))
    domain.add_group("XCALLY Supervisors", members(lambda c: c == "supervisor"))
    for number in range(1, 301):
        domain.add_group(f"Team {number:03}", members(lambda c: c == "300-groups"))


def add_policies(domain, cast):
    for condition, policy in POLICIES.items():
        people = [person.dn(domain.root) for person in cast if person.condition == condition]
        dn = f"CN={condition},CN=Password Settings Container,CN=System,{domain.root}"
        domain.add(dn, FINE_GRAINED | policy | {"objectClass": "msDS-PasswordSettings", "msDS-PSOAppliesTo": people})
        if condition in READABLE:
            domain.put_first(dn, READABLE[condition])


def create(domain, cast):
    domain.db.transaction_start()
    add_policy(domain)
    for person in cast:
        add_person(domain, person, cast)
    add_groups(domain, cast)
    add_policies(domain, cast)
    domain.db.transaction_commit()
    for person in cast:
        set_beneath(domain, person, cast)


def restore(domain, cast, sam):
    for person in cast:
        if person.sam == sam:
            set_account(domain, person)
            set_beneath(domain, person, cast)


def main(command, cast_file, *names):
    domain, cast = Domain(), read_cast(cast_file)
    if command == "create":
        create(domain, cast)
    else:
        restore(domain, cast, *names)


main(*sys.argv[1:])
