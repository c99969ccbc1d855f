# shellcheck shell=bash
# A large company in the domain: 50,000 people, u00001 and on, of whom the first 5,000 have a password; 2,000 groups of
# 25 of them each, all inside "XCALLY Agents"; and thomas.thousand, who is in 1,000 of these.
#     ROOT PASSWORD DOMAIN BASE-DN
root=$1 password=$2 domain=$3 base=$4
people=50000 passwords=5000 groups=2000 thousand=1000
# Of who has not logged in for two weeks a domain controller writes down that he does, which costs Samba a tenth of a second
# (lastLogonTimestamp, MS-ADA1). These people came yesterday as well: it is the year 2100, however old this layer is.
lately=157469184000000000

# Five hundred a transaction, which gets slower the longer it is.
crowd_ldb() { # TOOL
    chroot "$root" "$1" -H /var/lib/samba/private/sam.ldb --option=ldb:nosync=true >/dev/null
}

crowd_people() { # FROM TO
    awk -v from="$1" -v to="$2" -v root="$base" -v domain="$domain" -v passwords=$passwords -v lately=$lately \
        -v password="$(printf '"%s"' "$password" | iconv -t UTF-16LE | base64 -w0)" 'BEGIN {
        for (i = from; i <= to; i++) {
            name = sprintf("u%05d", i)
            print "dn: CN=" name ",OU=Crowd," root "\nobjectClass: user\nsAMAccountName: " name
            print "userPrincipalName: " name "@" domain "\ngivenName: Given" i "\nsn: Sur" i
            if (i <= passwords) print "userAccountControl: 512\nlastLogonTimestamp: " lately "\nunicodePwd:: " password "\n"
            else print "userAccountControl: 544\npwdLastSet: -1\n"
        }
    }'
}

crowd_groups() { # FROM TO
    awk -v from="$1" -v to="$2" -v root="$base" -v thousand=$thousand -v size=$((people / groups)) 'BEGIN {
        for (i = from; i <= to; i++) {
            name = sprintf("Unit %04d", i)
            print "dn: CN=" name ",OU=Groups," root "\nobjectClass: group\nsAMAccountName: " name "\ngroupType: -2147483646"
            for (j = (i - 1) * size + 1; j <= i * size; j++) printf "member: CN=u%05d,OU=Crowd,%s\n", j, root
            if (i <= thousand) print "member: CN=thomas.thousand,OU=People," root
            print ""
        }
    }'
}

printf '%s\n' "dn: OU=Crowd,$base" 'objectClass: organizationalUnit' '' \
    "dn: CN=thomas.thousand,OU=People,$base" 'objectClass: user' 'sAMAccountName: thomas.thousand' \
    "userPrincipalName: thomas.thousand@$domain" 'userAccountControl: 512' \
    "unicodePwd:: $(printf '"%s"' "$password" | iconv -t UTF-16LE | base64 -w0)" | crowd_ldb ldbadd
for ((from = 1; from <= people; from += 500)); do
    crowd_people $from $((from + 499)) | crowd_ldb ldbadd
done
for ((from = 1; from <= groups; from += 100)); do
    crowd_groups $from $((from + 99)) | crowd_ldb ldbadd
done
{
    printf '%s\n' "dn: CN=XCALLY Agents,OU=Groups,$base" 'changetype: modify' 'add: member'
    seq -f "member: CN=Unit %04g,OU=Groups,$base" $groups
} | crowd_ldb ldbmodify
