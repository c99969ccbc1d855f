# Writes the people of the table `cast` and the domain's password policy into a domain that is not
# running:    cast.py CAST
# One process and one transaction: twenty people and three hundred groups take two seconds.
import sys

import ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

SECOND = 10_000_000  # AD counts time in units of 100 ns, and durations as negative numbers
MINUTE = 60 * SECOND
NORMAL_ACCOUNT, DISABLED = 0x200, 0x2
GLOBAL_GROUP = -0x80000000 | 0x2
DOMAIN = "acme.com"
YEAR_2020 = 132_223_104_000_000_000  # in AD's time

POLICY = {
    "lockoutThreshold": 3,
    "lockoutDuration": -30 * MINUTE,
    "lockOutObservationWindow": -30 * MINUTE,
    "minPwdAge": 0,
    "minPwdLength": 1,
    "pwdHistoryLength": 0,
    "pwdProperties": 0,  # no complexity rules
}

# What a condition changes in an ordinary account.
CONDITIONS = {
    "disabled": {"userAccountControl": NORMAL_ACCOUNT | DISABLED},
    "account-expired": {"accountExpires": YEAR_2020},
    "must-change": {"pwdLastSet": 0},
    "out-of-hours": {"logonHours": bytes(21)},
    "other-workstation": {"userWorkstations": "OTHERPC"},
}

# A password policy of its own, by which any password is too old after a second.
EXPIRES_AT_ONCE = {
    "objectClass": "msDS-PasswordSettings",
    "msDS-PasswordSettingsPrecedence": 1,
    "msDS-MaximumPasswordAge": -SECOND,
    "msDS-MinimumPasswordAge": 0,
    "msDS-MinimumPasswordLength": 1,
    "msDS-PasswordHistoryLength": 0,
    "msDS-PasswordComplexityEnabled": "FALSE",
    "msDS-PasswordReversibleEncryptionEnabled": "FALSE",
    "msDS-LockoutThreshold": 3,
    "msDS-LockoutDuration": -30 * MINUTE,
    "msDS-LockoutObservationWindow": -30 * MINUTE,
}


def read_cast(path):
    """The table as (person, sam, upn, password, condition)."""
    with open(path, encoding="utf-8") as table:
        for line in table:
            if line.strip() and not line.startswith("#"):
                yield tuple(cell(text) for text in line.split("|"))


def cell(text):
    text = text.strip()
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    return "" if text == "-" else text


class Domain:
    def __init__(self):
        self.configuration = LoadParm()
        self.configuration.load_default()
        self.db = SamDB(session_info=system_session(), lp=self.configuration)
        self.root = self.db.domain_dn()

    def add(self, rdn, parent, attributes):
        """Adds an object, and returns its DN as text."""
        dn = ldb.Dn(self.db, parent)
        dn.add_child(ldb.Dn(self.db, "CN=name"))
        dn.set_component(0, *rdn)
        message = {"dn": dn}
        for name, value in attributes.items():
            message[name] = str(value) if isinstance(value, int) else value
        self.db.add(message)
        return str(dn)

    def set(self, dn, attributes):
        message = ldb.Message(ldb.Dn(self.db, dn))
        for name, value in attributes.items():
            value = str(value) if isinstance(value, int) else value
            message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
        self.db.modify(message)

    def group(self, name, members):
        attributes = {"objectClass": "group", "sAMAccountName": name, "groupType": GLOBAL_GROUP}
        if members:
            attributes["member"] = members
        return self.add(("CN", name), f"OU=Groups,{self.root}", attributes)

    def person(self, sam, upn, password, condition):
        dn = self.add(("CN", sam), f"OU=People,{self.root}", {
            "objectClass": "user",
            "sAMAccountName": sam,
            "userPrincipalName": upn,
            "userAccountControl": NORMAL_ACCOUNT,
            "unicodePwd": f'"{password}"'.encode("utf-16-le"),
        })
        if condition in CONDITIONS:
            self.set(dn, CONDITIONS[condition])
        return dn

    def add_upn_suffixes(self, suffixes):
        partitions = f"CN=Partitions,{self.db.get_config_basedn()}"
        self.set(partitions, {"uPNSuffixes": suffixes})


def create(domain, cast):
    domain.set(domain.root, POLICY)
    suffixes = {upn.partition("@")[2] for _, _, upn, _, _ in cast if upn}
    domain.add_upn_suffixes(sorted(suffixes - {DOMAIN}))
    for ou in ("People", "Groups"):
        domain.add(("OU", ou), domain.root, {"objectClass": "organizationalUnit"})

    having = {}  # condition -> DNs
    for _, sam, upn, password, condition in cast:
        if condition == "administrator":
            continue
        if upn in clashes(cast):
            upn = f"before.{upn}"
        having.setdefault(condition, []).append(domain.person(sam, upn, password, condition))

    night = domain.group("Agents Night Shift", having["nested"])
    direct = [dn for condition, dns in having.items() if condition not in ("nested", "outsider") for dn in dns]
    domain.group("XCALLY Agents", [night] + direct)
    domain.group("XCALLY Denied", having["denied"])
    for number in range(1, 301):
        domain.group(f"Team {number:03}", having["300-groups"])

    domain.add(("CN", "Expires at once"), f"CN=Password Settings Container,CN=System,{domain.root}",
               EXPIRES_AT_ONCE | {"msDS-PSOAppliesTo": having["password-expired"]})


def clashes(cast):
    """UPNs that are also somebody else's implicit name, sAMAccountName@domain -> the sAMAccountName of their holder."""
    implicit = {f"{sam}@{DOMAIN}": sam for _, sam, _, _, _ in cast}
    return {upn: sam for _, sam, upn, _, _ in cast if implicit.get(upn, sam) != sam}


def force_clashes(domain, cast):
    """Windows lets an administrator create such a clash and Samba's checks do not, so it is written beneath them."""
    partition = ldb.Ldb(domain.configuration.private_path(f"sam.ldb.d/{domain.root.upper()}.ldb"))
    for upn, sam in clashes(cast).items():
        message = ldb.Message(ldb.Dn(partition, f"CN={sam},OU=People,{domain.root}"))
        message["upn"] = ldb.MessageElement(upn, ldb.FLAG_MOD_REPLACE, "userPrincipalName")
        partition.modify(message)


def main():
    domain, cast = Domain(), list(read_cast(sys.argv[1]))
    domain.db.transaction_start()
    create(domain, cast)
    domain.db.transaction_commit()
    force_clashes(domain, cast)


main()
